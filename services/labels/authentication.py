"""Who asks: keys and cookies looked up in the database, for every request anew.

Requests of one key that come at the same time share a look-up, if it has not begun: none is
answered from what was true before it came.
"""

import asyncio
import logging
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from services.labels.api_keys import principal_of_key, touch_key
from services.labels.sessions import principal_of_session, touch_session
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.store.tables import Annotator, core
from services.web.auth import Credentials, Principal
from services.web.clock import Clock
from services.web.keys import parse_key
from services.web.limits import RateLimiter
from services.web.problems import Problem, unavailable

Found = tuple[Principal, bool] | None
"""Who it is, and whether their last use is to be noted."""

_annotators = core(Annotator)
_STATE = select(_annotators.c.state).where(_annotators.c.id == bindparam("id"))

_log = logging.getLogger(__name__)


class Directory:
    """`services.web.auth.Authenticate` over the database."""

    def __init__(self, database: Database, clock: Clock, limiter: RateLimiter) -> None:
        self._database = database
        self._clock = clock
        self._limiter = limiter
        self._touching: dict[str, asyncio.Task[Any]] = {}
        self._waiting: dict[Credentials, asyncio.Task[Found]] = {}
        self._running: dict[Credentials, asyncio.Task[Found]] = {}

    async def __call__(self, credentials: Credentials) -> Principal | None:
        """Who asks, and their use of it noted; 403 for a person whom an admin has excluded, 429
        for one who asks too often."""
        found = await self._find(credentials)
        if found is None:
            return None
        principal, stale = found
        if principal.role in ("annotator", "viewer"):
            self._limiter.take("requests", principal.key_id)
        if stale:
            self._touch(principal, credentials, self._clock())
        return principal

    async def look_up(self, credentials: Credentials) -> Principal | None:
        """Who it is, if anybody still; no use of it, so that an open stream keeps none alive."""
        found = await self._find(credentials)
        return found[0] if found else None

    async def _find(self, credentials: Credentials) -> Found:
        waiting = self._waiting.get(credentials)
        if waiting is None:
            waiting = asyncio.create_task(self._look_up_next(credentials))
            self._waiting[credentials] = waiting
        # Who goes away must not take the others' look-up along.
        return await asyncio.shield(waiting)

    async def _look_up_next(self, credentials: Credentials) -> Found:
        """Look up once the one under way is over; until then others may join."""
        if credentials in self._running:
            await asyncio.wait([self._running[credentials]])
        self._running[credentials] = task = self._waiting.pop(credentials)
        now = self._clock()
        try:
            return await self._database.look(lambda session: _find(session, credentials, now))
        except StoreUnavailable as error:
            raise unavailable(str(error)) from error
        finally:
            if self._running[credentials] is task:
                del self._running[credentials]

    def _touch(self, principal: Principal, credentials: Credentials, now: datetime) -> None:
        """Note the use beside the request: an answer must not wait for it."""
        if principal.key_id in self._touching:
            return

        def operation(session: Session) -> None:
            if credentials.cookie:
                touch_session(session, credentials.cookie, now)
            else:
                touch_key(session, principal.key_id, now)

        async def write() -> None:
            try:
                await self._database.write(operation)
            except StoreUnavailable as error:
                _log.warning("last use of %s is not noted: %s", principal.actor, error)
            finally:
                del self._touching[principal.key_id]

        self._touching[principal.key_id] = asyncio.create_task(write())


def _find(session: Session, credentials: Credentials, now: datetime) -> Found:
    if credentials.cookie:
        found = principal_of_session(session, credentials.cookie, now)
    else:
        key = parse_key(credentials.bearer)
        found = principal_of_key(session, *key, now) if key else None
    annotator_id = found[0].annotator_id if found else None
    if annotator_id and session.scalar(_STATE, {"id": annotator_id}) != "active":
        detail = "an admin has closed this account; ask whoever invited you"
        raise Problem(403, "annotator-excluded", "This account is closed", detail)
    return found
