"""What stands before the pages: who has no session is shown the way in, and a socket is opened for
our own pages alone. Under /api the API's own rules hold."""

from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.dashboard.sessions import COOKIE, ROLES, Sessions
from services.web.auth import SAFE_METHODS, Principal, credentials_of, own_origin
from services.web.problems import Problem

OPEN = ("/login", "/assets/", "/_nicegui/", "/healthz", "/readyz", "/metrics")
"""What strangers get: the way in, files of the package, and what watches the process."""
SOCKET = "/_nicegui_ws/"
"""Of the websocket, and of the requests that stand in for it where a proxy lets none through: their
bodies are socket.io's own text."""
# NiceGUI's pages carry their elements in inline scripts, and Vue compiles its slots in the browser.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; script-src-attr 'none'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class Gate:
    """Outside the pages, inside what surrounds every request."""

    def __init__(
        self, app: ASGIApp, sessions: Sessions, allowed_origins: tuple[str, ...] = ()
    ) -> None:
        self.app = app
        self.sessions = sessions
        self.allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
            return
        if not scope["path"].startswith(OPEN):
            principal = await self._principal(scope)
            if principal is None or principal.role not in ROLES:
                await _turn_away(scope, receive, send, principal)
                return
            scope.setdefault("state", {})["principal"] = principal
        await self.app(scope, receive, _with_policy(send))

    async def _principal(self, scope: Scope) -> Principal | None:
        if scope["path"].startswith(SOCKET) and not self._is_ours(scope):
            return None
        try:
            credentials = credentials_of(_as_http(scope), COOKIE)
            return await self.sessions(credentials) if credentials.cookie else None
        except Problem as problem:
            if problem.status in (400, 401, 403):
                return None
            raise

    def _is_ours(self, scope: Scope) -> bool:
        """A page from elsewhere may open a socket to us, and browsers send our cookie along. They
        name its origin with everything but a plain GET, whose answer that page cannot read."""
        origin = Headers(scope=scope).get("origin")
        if origin is None:
            return scope.get("method") in SAFE_METHODS
        return origin in (own_origin(scope), *self.allowed_origins)


def _as_http(scope: Scope) -> Scope:
    return {**scope, "type": "http", "method": "GET"}


async def _turn_away(
    scope: Scope, receive: Receive, send: Send, principal: Principal | None
) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401})
    elif principal is not None:
        text = "This key labels; the dashboard would show it what judges have said."
        await PlainTextResponse(text, 403)(scope, receive, send)
    elif scope["path"].startswith(SOCKET):
        await PlainTextResponse("no session", 401)(scope, receive, send)
    else:
        query = scope["query_string"].decode("latin-1")
        wanted = scope["path"] + (f"?{query}" if query else "")
        await RedirectResponse(f"/login?next={quote(wanted)}", 303)(scope, receive, send)


def _with_policy(send: Send) -> Send:
    """NiceGUI's pages alone need a looser one than everything else has."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if "X-NiceGUI-Content" in headers:
                headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        await send(message)

    return sending
