"""Who asks, and what they may: everything under /api is denied unless a route says otherwise."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.web.keys import Role
from services.web.problems import Problem

COOKIE = "tdmr1_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Principal:
    """Who asks: the owner of a key, or of a browser session."""

    kind: Literal["key", "session"]
    key_id: str
    """The key's public part, or `annotator:<id>` for a session: whose idempotency and rates."""
    role: Role
    scopes: frozenset[str] = frozenset()
    annotator_id: str | None = None
    csrf_token: str = field(default="", repr=False)
    ip_sha256: str | None = None
    """Keyed hash of the address they ask from, for the audit log."""

    @property
    def actor(self) -> str:
        """As the audit log names them."""
        return f"key:{self.key_id}" if self.kind == "key" else self.key_id

    def may(self, *allowed: str) -> bool:
        """Whether the role, or one of the scopes, is among the allowed."""
        return self.role in allowed or not self.scopes.isdisjoint(allowed)


@dataclass(frozen=True)
class Credentials:
    """What a request carries to say who asks; exactly one of the two is not empty."""

    bearer: str = field(default="", repr=False)
    cookie: str = field(default="", repr=False)


Authenticate = Callable[[Credentials], Awaitable[Principal | None]]
"""Looks credentials up; None where nobody has them (any more)."""


class KeyRing(Protocol):
    """Knows who has which key or session."""

    async def __call__(self, credentials: Credentials) -> Principal | None:
        """Who asks, and their use of it noted."""
        ...

    async def look_up(self, credentials: Credentials) -> Principal | None:
        """Who it is, if anybody still; no use of it."""
        ...


class _Require:
    """The dependency of a route: `allowed` is read when the app checks that none was forgotten."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed

    async def __call__(self, request: Request) -> Principal:
        principal = getattr(request.state, "principal", None)
        if principal is None:
            raise unauthenticated()
        if self.allowed and not principal.may(*self.allowed):
            detail = f"role {principal.role} may not; allowed: {', '.join(self.allowed)}"
            raise Problem(403, "forbidden", "Not allowed", detail)
        return principal


def require(*allowed: str) -> Any:
    """`principal: Principal = require("service", "labels:push")`: these roles or scopes; any role
    where none is named."""
    return Depends(_Require(allowed))


def allowed_of(route: Any) -> tuple[str, ...] | None:
    """What a route requires; None where it forgot to."""
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return next((call.allowed for call in calls if isinstance(call, _Require)), None)


def check_closed(router: APIRouter, prefix: str, open_routes: frozenset[tuple[str, str]]) -> None:
    """AssertionError where a route under `prefix` does not ask who calls it."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            addresses = {(method, prefix + route.path) for method in route.methods or ()}
            is_closed = addresses <= open_routes or allowed_of(route) is not None
            assert is_closed, f"{sorted(addresses)} lacks require(...)"


def unauthenticated(detail: str = "give an API key: Authorization: Bearer tdmr1_...") -> Problem:
    """401."""
    return Problem(401, "unauthenticated", "Who are you?", detail)


class Authentication:
    """Finds out who asks before anything of the body is read, and turns strangers away."""

    def __init__(
        self,
        app: ASGIApp,
        authenticate: Authenticate,
        prefix: str,
        open_routes: frozenset[tuple[str, str]],
        allowed_origins: tuple[str, ...] = (),
        ip_salt: bytes = b"",
        cookie: str = COOKIE,
    ) -> None:
        """`cookie` names the one that browsers' sessions are in; none if empty."""
        self.app = app
        self.authenticate = authenticate
        self.prefix = prefix
        self.open_routes = open_routes
        self.allowed_origins = allowed_origins
        self.ip_salt = ip_salt
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self.prefix):
            if (scope["method"], scope["path"]) in self.open_routes:
                self._check_origin(scope, needed=False)
            else:
                scope["state"]["principal"] = await self._principal(scope)
        await self.app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        credentials = credentials_of(scope, self.cookie)
        principal = await self.authenticate(credentials)
        if principal is None:
            raise unauthenticated("this key or session is unknown, expired or revoked")
        if principal.kind == "session" and scope["method"] not in SAFE_METHODS:
            self._check_origin(scope, needed=True)
            _check_csrf(scope, principal)
        host, _ = scope.get("client") or ("", 0)
        return replace(principal, ip_sha256=_ip_sha256(self.ip_salt, host))

    def _check_origin(self, scope: Scope, needed: bool) -> None:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        own = own_origin(scope)
        if (origin is None and needed) or (
            origin is not None and origin not in (own, *self.allowed_origins)
        ):
            detail = f"Origin {origin!r} is not this service ({own}) nor in allowed_origins"
            raise Problem(403, "origin-not-allowed", "Request from a foreign page", detail)


def own_origin(scope: Scope) -> str:
    """The origin of our pages as the browser has it, which a socket of theirs names too. The scheme
    is what a trusted proxy says."""
    scheme = scope["scheme"].replace("ws", "http")
    return f"{scheme}://{Headers(scope=scope).get('host', '')}"


def credentials_of(scope: Scope, cookie_name: str = COOKIE) -> Credentials:
    """Bearer key of a request, else its session cookie; 401 where it has neither."""
    scheme, _, bearer = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise unauthenticated(f"scheme {scheme!r} is not known; use Bearer tdmr1_...")
    if scheme:
        return Credentials(bearer=bearer.strip())
    cookie = Request(scope).cookies.get(cookie_name, "")
    if cookie:
        return Credentials(cookie=cookie)
    raise unauthenticated()


@lru_cache(maxsize=1024)
def _ip_sha256(salt: bytes, host: str) -> str:
    return hmac.new(salt, host.encode(), "sha256").hexdigest()


def _check_csrf(scope: Scope, principal: Principal) -> None:
    token = Headers(scope=scope).get("x-csrf-token", "")
    if not hmac.compare_digest(token.encode(), principal.csrf_token.encode()):
        detail = "send the csrf_token of GET /api/v1/session as the header X-CSRF-Token"
        raise Problem(403, "csrf", "The CSRF token is missing or wrong", detail)
