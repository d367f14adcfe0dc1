"""What surrounds every request. Outermost first: Envelope (request id, headers, errors, timing),
Doorkeeper (Host, secrets in the address, size and type of the body), then `auth.Authentication`."""

import logging
import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.web.clock import Clock
from services.web.ids import new_id
from services.web.keys import SECRET_PATTERN
from services.web.problems import Problem, respond, unexpected

# Pages are static files over the API: no inline script, nothing from elsewhere, in nobody's frame.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)

RawHeader = tuple[bytes, bytes]
Observe = Callable[[str, str, int, float], None]
"""Told route template, method, status and seconds of each request."""
BodyLimit = Callable[[str], int]
"""The most bytes that a body sent to this path may have."""

_log = logging.getLogger("tdm_r1.requests")


class Envelope:
    """Gives a request its id and an answer its headers; turns every error into a problem."""

    def __init__(self, app: ASGIApp, clock: Clock, prefix: str, observe: Observe) -> None:
        self.app = app
        self.clock = clock
        self.prefix = prefix
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        start = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message["headers"], request_id)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Problem as problem:
            await respond(scope, problem)(scope, receive, send_with_headers)
        except Exception as error:  # The last door: a caller gets a problem, the log the traceback.
            if status:  # Too late to say so: the server cuts the connection.
                raise
            await unexpected(scope, error)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - start
            self.observe(self._template(scope), scope["method"], status, seconds)
            _log.info("%s", _line(scope, self._template(scope), status, seconds))

    def _request_id(self, scope: Scope) -> str:
        given = Headers(scope=scope).get("x-request-id", "")
        return given if REQUEST_ID.fullmatch(given) else new_id(self.clock())

    def _template(self, scope: Scope) -> str:
        """The route's path with its parameters' names: few, and without anybody's ids."""
        path = getattr(scope.get("route"), "path", None)
        if path is None:
            return "unknown"
        nested = scope["path"].startswith(self.prefix) and not path.startswith(self.prefix)
        return self.prefix + path if nested else path


def _with_ours(raw: Iterable[RawHeader], request_id: str) -> list[RawHeader]:
    """The answer's headers with our own; one that a route has set stays as it is."""
    headers = [*raw]
    given = {name for name, _ in headers}
    missing = [header for header in _RAW_HEADERS if header[0] not in given]
    return [*headers, (b"x-request-id", request_id.encode()), *missing]


def _line(scope: Scope, template: str, status: int, seconds: float) -> str:
    """One request in the log: neither addresses nor secrets."""
    principal = scope["state"].get("principal")
    who = principal.actor if principal else "-"
    request_id = scope["state"]["request_id"]
    return f"{scope['method']} {template} {status} {seconds * 1e3:.1f} ms {who} {request_id}"


class Doorkeeper:
    """Turns away what needs no reading: a foreign Host, a secret in the address, a body too big or
    not JSON."""

    def __init__(
        self,
        app: ASGIApp,
        allowed_hosts: tuple[str, ...],
        body_limit: BodyLimit,
        raw_prefixes: tuple[str, ...],
    ) -> None:
        """Under `raw_prefixes` bodies are no JSON; who sends them is the routes' to check."""
        self.app = app
        self.allowed_hosts = allowed_hosts
        self.body_limit = body_limit
        self.raw_prefixes = raw_prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        self._check_host(headers)
        _check_address(scope)
        limit = self.body_limit(scope["path"])
        self._check_body(scope["path"], headers, limit)
        await self.app(scope, _counted(receive, limit), send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_host(Headers(scope=scope))
            _check_address(scope)
        except Problem:  # a handshake is answered by 403 and no body
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """A page that rebinds its name to our address still sends its own name as Host."""
        hosts = headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""  # two of them are a trick upon a proxy
        name = re.sub(r":\d+$", "", host).lower()
        if name not in self.allowed_hosts:
            detail = f"Host {host!r} is not in allowed_hosts; serve with --allowed-host {name}"
            raise Problem(400, "host-not-allowed", "This service has another name", detail)

    def _check_body(self, path: str, headers: Headers, limit: int) -> None:
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Problem(400, "malformed-request", "Content-Length is not a number")
        if int(length) > limit:
            raise _too_large(limit)
        has_body = int(length) > 0 or "transfer-encoding" in headers
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if has_body and not path.startswith(self.raw_prefixes) and media_type != "application/json":
            detail = f"Content-Type is {media_type!r}; send application/json"
            raise Problem(415, "unsupported-media-type", "Send JSON", detail)


def _check_address(scope: Scope) -> None:
    address = scope["path"] + "?" + unquote(scope["query_string"].decode("latin-1"))
    if "\0" in address:  # PostgreSQL takes none in a text; no name of ours has one
        raise Problem(400, "malformed-request", "The address has a NUL character")
    if SECRET_PATTERN.search(address):
        detail = (
            "addresses end up in logs: revoke it, and send the new one as Authorization: Bearer"
        )
        raise Problem(400, "key-in-url", "A secret in the address", detail)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` that stops a body which is longer than its Content-Length admitted."""
    num_bytes = 0

    async def counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> Problem:
    detail = f"a body here may have {limit} bytes at most"
    return Problem(413, "content-too-large", "The body is too large", detail)
