"""Which names and addresses a service of ours may have."""

from collections.abc import Iterable

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
EVERYWHERE = ("0.0.0.0", "::")


def with_host(allowed: Iterable[str], host: str) -> tuple[str, ...]:
    """The names it answers to: those allowed and, unless it listens everywhere, its own."""
    return tuple(dict.fromkeys([*allowed] if host in EVERYWHERE else [*allowed, host]))
