"""Requests to addresses that somebody typed in, so that none reaches what only we can reach.

The host must be on the allow-list and is resolved once; every address it has must be public, and
the connection goes to the first of them that takes it, whatever the name says later. No redirects,
no proxies, a limit on time and on what is read. (SSRF; design 4.1.)
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
_HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z][a-z0-9-]*")
_TUNNELS = tuple(
    ipaddress.ip_network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 addresses that stand for an IPv4 one: NAT64, 6to4, Teredo, IPv4-compatible."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host and a port to all its addresses; OSError where it has none."""


class ForbiddenUrlError(ValueError):
    """A URL that we do not send to; the message says why and what is allowed."""


class UnresolvedHostError(ForbiddenUrlError):
    """A host without an address: perhaps only now."""


@dataclass(frozen=True)
class OutboundRules:
    """Where requests may go."""

    allowed_hosts: tuple[str, ...]
    """Host names, `*.example.com`, or either with `:port`; without a port it is 443."""
    allow_private: bool = False
    """Lets http and private addresses pass, for tests and receivers on this machine."""
    setting: str = "webhook_hosts"
    """What a person sets to allow a host, for messages."""


@dataclass(frozen=True)
class Target:
    """A checked URL and the addresses to connect to, in the resolver's order."""

    url: httpx.URL
    addresses: tuple[Address, ...]

    @property
    def connect_urls(self) -> list[httpx.URL]:
        """The URL with each address in the name's place."""
        return [self.url.copy_with(host=str(address)) for address in self.addresses]


def check_url(text: str, rules: OutboundRules) -> httpx.URL:
    """The URL, if its form and host are allowed; nothing is resolved."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise ForbiddenUrlError(f"{text!r} is no URL ({error})") from error
    if url.scheme != "https" and not (url.scheme == "http" and rules.allow_private):
        raise ForbiddenUrlError(f"scheme {url.scheme!r} is not allowed; use https")
    if url.userinfo or url.fragment:
        raise ForbiddenUrlError("a user, a password or a fragment in the URL is not allowed")
    host = url.raw_host.decode().lower()
    if not (_HOST_NAME.fullmatch(host) or _is_canonical_address(host)):
        raise ForbiddenUrlError(f"host {url.host!r} is neither a name nor a plain IP address")
    _check_listed(url, host, rules)
    if _is_canonical_address(host):
        _check_public(host, ipaddress.ip_address(host), rules)
    return url


async def look_up(host: str, port: int) -> Sequence[str]:
    """Every address that the system's resolver has for the host."""
    found = await address_info(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def address_info(host: Any, port: Any, **hints: int) -> list[Any]:
    """As the loop's getaddrinfo, on a thread that is left behind when nobody waits any more.

    The loop's own shares a few threads with all else, and the loop waits for them at its end.
    """
    found: Future[Any] = Future()
    found.set_running_or_notify_cancel()  # from here on a cancelled wait leaves it alone

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, **hints))
        except Exception as error:  # whatever it is, it is for who waits
            found.set_exception(error)

    threading.Thread(target=look_up, daemon=True).start()
    return await asyncio.wrap_future(found)


async def resolve(url: httpx.URL, rules: OutboundRules, look_up: Lookup = look_up) -> Target:
    """Look the host up, once; every address must be one that we may talk to."""
    try:
        found = await look_up(url.host, _port(url))
    except (OSError, UnicodeError) as error:
        raise UnresolvedHostError(f"host {url.host!r} has no address ({error})") from error
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(text) for text in found))
    if not addresses:
        raise UnresolvedHostError(f"host {url.host!r} has no address")
    for address in addresses:
        _check_public(url.host, address, rules)
    return Target(url, addresses)


def is_public(address: Address) -> bool:
    """Whether an address is on the open internet, and stands for no other."""
    if isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None
        or address.is_site_local
        or address.scope_id is not None
        or any(address in network for network in _TUNNELS)
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


async def send(
    http: httpx.AsyncClient,
    target: Target,
    content: bytes,
    headers: dict[str, str],
    deadline: float,
) -> httpx.Response:
    """Post to the first checked address that takes a connection, under the URL's own name.

    Each may take an even share of the time until `deadline` (monotonic), the last one all of it.
    Only connecting is tried again, so nothing is sent twice. The time limit itself is the caller's,
    and so are reading and closing the answer.
    """
    host = target.url.netloc.decode()
    named = {**headers, "Host": host, "Accept-Encoding": "identity"}
    faults: list[str] = []
    for place, url in enumerate(target.connect_urls):
        others = len(target.addresses) - place - 1
        share_s = max(deadline - time.monotonic(), 0.0) / (others + 1)
        patience = {**http.timeout.as_dict(), **({"connect": share_s} if others else {})}
        request = http.build_request(
            "POST",
            url,
            content=content,
            headers=named,
            timeout=httpx.Timeout(**patience),
            extensions={"sni_hostname": target.url.host},
        )
        try:
            return await http.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            faults.append(f"{url.host}: {str(error) or f'no connection within {share_s:.3g} s'}")
    raise httpx.ConnectError("; ".join(faults))


async def post(
    http: httpx.AsyncClient,
    target: Target,
    content: bytes,
    headers: dict[str, str],
    deadline: float,
) -> httpx.Response:
    """As `send`, and read some of the answer."""
    response = await send(http, target, content, headers, deadline)
    try:
        await _read_some(response)
    finally:
        await response.aclose()
    return response


def outbound_client(
    timeout_s: float | None = TIMEOUT_S, ca_file: Path | None = None
) -> httpx.AsyncClient:
    """A client that asks no proxy and follows nobody.

    `timeout_s` None leaves the time limit to the caller; `ca_file` (PEM) vouches for servers in the
    place of the public authorities.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=ca_file) if ca_file else True,
        trust_env=False,
        follow_redirects=False,
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=0),
    )


async def _read_some(response: httpx.Response) -> None:
    num_bytes = 0
    async for chunk in response.aiter_raw():
        num_bytes += len(chunk)
        if num_bytes > MAX_ANSWER_BYTES:
            return


def _check_listed(url: httpx.URL, host: str, rules: OutboundRules) -> None:
    port = _port(url)
    for entry in rules.allowed_hosts:
        pattern, allowed_port = _split(entry)
        if fnmatchcase(host, pattern) and allowed_port in ("*", str(port)):
            return
    allowed = ", ".join(rules.allowed_hosts) or f"none; set {rules.setting}"
    raise ForbiddenUrlError(f"{host}:{port} is not on the allow-list; allowed: {allowed}")


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _check_public(host: str, address: Address, rules: OutboundRules) -> None:
    if not (rules.allow_private or is_public(address)):
        raise ForbiddenUrlError(f"host {host!r} has the address {address}, which is not public")


def _split(entry: str) -> tuple[str, str]:
    """An allow-list entry's host and port; an IPv6 address is written in brackets."""
    host, _, port = entry.lower().rpartition(":")
    if not host or entry.endswith("]"):
        host, port = entry.lower(), "443"
    return host.strip("[]"), port


def _is_canonical_address(host: str) -> bool:
    """Not 127.1, 0x7f000001, 2130706433 or 0177.0.0.1, which resolvers read as addresses too."""
    try:
        return str(ipaddress.ip_address(host)) == host
    except ValueError:
        return False
