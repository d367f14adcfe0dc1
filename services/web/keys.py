"""API keys: `tdmr1_<key id>_<secret>`. The secret is 32 random bytes; only its SHA-256 is stored.

The secret is random and long, so a slow hash would protect nothing. Session cookies and invites are
secrets of the same make under their own prefixes, so that scanners and logs can tell them.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Literal, get_args

Role = Literal["viewer", "annotator", "service", "admin"]
ROLES: tuple[str, ...] = get_args(Role)
SCOPES = {
    "labels:on_behalf": "service",  # may name the external user whose label it pushes
    "labels:push": "annotator",  # may push labels without a lease, on images of its choice
}
"""What a key may be given beyond its role, and the role that it can be given to."""

SESSION_PREFIX = "tdmr1s_"
INVITE_PREFIX = "tdmr1i_"
SECRET_PATTERN = re.compile(r"tdmr1[si]?_[\w-]{16,}")
"""Finds any of our secrets in a text."""

_KEY = re.compile(r"tdmr1_(?P<id>[0-9A-Za-z]{26})_(?P<secret>[\w-]{43})")


def new_key(key_id: str) -> tuple[str, str]:
    """The key to show once, and the SHA-256 (hex) to store."""
    secret = secrets.token_urlsafe(32)
    return f"tdmr1_{key_id}_{secret}", sha256(secret)


def parse_key(text: str) -> tuple[str, str] | None:
    """Key id and secret; None where `text` is no key of ours."""
    found = _KEY.fullmatch(text)
    return (found["id"], found["secret"]) if found else None


def new_secret(prefix: str) -> tuple[str, str]:
    """A cookie or invite to hand out once, and the SHA-256 (hex) of the whole to store."""
    secret = prefix + secrets.token_urlsafe(32)
    return secret, sha256(secret)


def sha256(secret: str) -> str:
    """Hex digest."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, digest: str) -> bool:
    """Whether `digest` is of `secret`, in constant time."""
    return hmac.compare_digest(sha256(secret), digest)


def redact(text: str) -> str:
    """`text` without our secrets."""
    return SECRET_PATTERN.sub("tdmr1_...", text)


def check_grant(role: str, scopes: Iterable[str], annotator_id: str | None) -> None:
    """ValueError where a key of this role may not be made so."""
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}; allowed: {', '.join(ROLES)}")
    for scope in scopes:
        if SCOPES.get(scope) != role:
            fitting = ", ".join(name for name, owner in SCOPES.items() if owner == role)
            raise ValueError(
                f"scope {scope!r} is not for role {role}; allowed: {fitting or 'none'}"
            )
    if role == "annotator" and annotator_id is None:
        raise ValueError("a key of role annotator needs the annotator_id it labels as")
    if role in ("viewer", "service") and annotator_id is not None:
        raise ValueError(f"a key of role {role} labels as nobody; leave annotator_id out")
