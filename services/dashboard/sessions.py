"""Browsers of the dashboard: a key, or the link that the start prints once, becomes a cookie.

Sessions are in this process's memory, so a restart ends them. Behind each stands a key that is
looked up anew for every request: once it is revoked, the session is of no use.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.web.auth import Credentials, KeyRing, Principal
from services.web.clock import Clock
from services.web.keys import INVITE_PREFIX, SESSION_PREFIX, new_secret, sha256
from services.web.sessions import LIFETIME, is_live

COOKIE = "tdmr1_dashboard"
"""Not the label service's: browsers send a cookie to every port of a host."""
INVITE_LIFETIME = timedelta(minutes=30)
ROLES = ("viewer", "service", "admin")
"""Who may look; annotators may not see what judges said before they do."""
OPERATOR = Principal("session", "operator", "admin")
"""Who has the link of the terminal, and so the machine."""
MAX_SESSIONS = 1000
MAX_OF_A_KEY = 50
"""Then its own oldest ends, and nobody else's: a shared key signs many browsers in."""


@dataclass
class _Session:
    credentials: Credentials | None
    """The key behind it; None is the operator."""
    csrf_token: str
    last_seen_at: datetime
    expires_at: datetime


class Sessions:
    """A key ring that knows cookies too."""

    def __init__(self, keys: KeyRing, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._invites: dict[str, datetime] = {}

    def invite(self) -> str:
        """The secret of a link that makes one browser the operator's."""
        secret, digest = new_secret(INVITE_PREFIX)
        self._invites[digest] = self._clock() + INVITE_LIFETIME
        return secret

    async def open(self, secret: str) -> str | None:
        """The cookie of a new session for a key or an invite; None where nobody may look by it."""
        expires = self._invites.pop(sha256(secret), None)
        if expires is not None:
            return self._start(None) if self._clock() < expires else None
        credentials = Credentials(bearer=secret)
        principal = await self._keys(credentials)
        may_look = principal is not None and principal.role in ROLES
        return self._start(credentials) if may_look else None

    def close(self, cookie: str) -> None:
        """Nobody can use it any more."""
        self._sessions.pop(sha256(cookie), None)

    async def __call__(self, credentials: Credentials) -> Principal | None:
        """Who asks, by cookie or by key, and their use of it noted."""
        if not credentials.cookie:
            return await self._keys(credentials)
        session = self._live(credentials.cookie)
        if session is None:
            return None
        session.last_seen_at = self._clock()
        return await self._principal(session)

    async def look_up(self, credentials: Credentials) -> Principal | None:
        """Who it is, if anybody still; no use of it."""
        if not credentials.cookie:
            return await self._keys.look_up(credentials)
        session = self._live(credentials.cookie)
        return None if session is None else await self._principal(session)

    def _start(self, credentials: Credentials | None) -> str:
        cookie, digest = new_secret(SESSION_PREFIX)
        now = self._clock()
        self._sessions[digest] = _Session(
            credentials, secrets.token_urlsafe(32), now, now + LIFETIME
        )
        own = [each for each, one in self._sessions.items() if one.credentials == credentials]
        if len(own) > MAX_OF_A_KEY:
            del self._sessions[own[0]]
        elif len(self._sessions) > MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        return cookie

    def _live(self, cookie: str) -> _Session | None:
        session = self._sessions.get(sha256(cookie))
        if session is None:
            return None
        return session if is_live(session.last_seen_at, session.expires_at, self._clock()) else None

    async def _principal(self, session: _Session) -> Principal | None:
        if session.credentials is None:
            return replace(OPERATOR, csrf_token=session.csrf_token)
        found = await self._keys.look_up(session.credentials)
        if found is None:
            return None
        # A session's id is how the audit log names it: as the key that it stands for.
        return replace(found, kind="session", key_id=found.actor, csrf_token=session.csrf_token)
