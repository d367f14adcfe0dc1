"""The outbox's background task: takes due deliveries, sends them, writes down what came of it."""

import asyncio
import json
import logging
import re
import time
from dataclasses import dataclass
from datetime import timedelta

import httpx
from fastapi import FastAPI
from sqlalchemy.orm import Session

from services.labels import metrics
from services.labels.outbox import Outcome, Parcel, anything_due, claim, forget_old, settle
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.webhooks import signed_headers
from services.web.clock import Clock
from services.web.outbound import (
    TIMEOUT_S,
    ForbiddenUrlError,
    OutboundRules,
    check_url,
    outbound_client,
    post,
    resolve,
)

POLL_S = 1.0
FORGET_S = 3600.0
MAX_ERROR = 300
_log = logging.getLogger(__name__)


@dataclass
class Courier:
    """`run` for ever, or `deliver_due` once."""

    database: Database
    rules: OutboundRules
    clock: Clock
    poll_s: float = POLL_S
    timeout_s: float = TIMEOUT_S

    async def run(self) -> None:
        """Consumes: due deliveries. Produces: requests. Waits for: the next poll. Ends: never."""
        async with outbound_client() as http:
            while True:
                try:
                    sent = await self.deliver_due(http)
                except StoreUnavailable as error:
                    _log.warning("webhooks wait: %s", error)
                    sent = 0
                if not sent:
                    await asyncio.sleep(self.poll_s)

    async def deliver_due(self, http: httpx.AsyncClient) -> int:
        """Send what is due now; how many deliveries were tried."""
        now = self.clock()
        if not await self.database.look(lambda session: anything_due(session, now)):
            return 0
        parcels = await self.database.write(lambda session: claim(session, now))
        await asyncio.gather(*(self._deliver(http, parcel) for parcel in parcels))
        return len(parcels)

    async def _deliver(self, http: httpx.AsyncClient, parcel: Parcel) -> None:
        outcome = await self._send(http, parcel)
        metrics.webhook_deliveries.labels("delivered" if outcome.delivered else "failed").inc()
        now = self.clock()

        def write(session: Session) -> None:
            settle(session, parcel, outcome, now)

        await self.database.write(write)

    async def _send(self, http: httpx.AsyncClient, parcel: Parcel) -> Outcome:
        body = json.dumps(parcel.body, separators=(",", ":")).encode()
        timestamp = int(self.clock().timestamp())
        headers = signed_headers(parcel.secret, parcel.delivery_id, timestamp, body)
        deadline = time.monotonic() + self.timeout_s
        try:
            # Looked up at every attempt: an address that was public yesterday may not be today.
            async with asyncio.timeout(self.timeout_s):
                target = await resolve(check_url(parcel.url, self.rules), self.rules)
                response = await post(http, target, body, headers, deadline)
        except TimeoutError:
            return Outcome(error=f"no answer within {self.timeout_s:g} s")
        except ForbiddenUrlError as error:
            return Outcome(error=f"not sent: {error}"[:MAX_ERROR])
        except Exception as error:  # whatever a receiver provokes, other deliveries go on
            return Outcome(error=f"{type(error).__name__}: {error}"[:MAX_ERROR])
        if response.is_redirect:
            return Outcome(response.status_code, "redirects are not followed; correct the URL")
        wished = response.headers.get("retry-after", "")
        retry_after_s = float(wished) if re.fullmatch("[0-9]{1,6}", wished) else None
        return Outcome(response.status_code, None, retry_after_s)


async def deliver_events(app: FastAPI) -> None:
    """The app's courier, by its settings."""
    settings = app.state.settings
    rules = OutboundRules(settings.webhook_hosts, settings.webhook_private)
    await Courier(app.state.database, rules, app.state.clock).run()


async def forget_events(app: FastAPI) -> None:
    """Drop events and deliveries older than the settings keep them. Waits for: an hour to pass."""
    keep = timedelta(days=app.state.settings.event_days)
    while True:
        before = app.state.clock() - keep
        # In small pieces, so that no label waits long behind them.
        while await app.state.database.write(lambda s, before=before: forget_old(s, before)):
            await asyncio.sleep(0)
        await asyncio.sleep(FORGET_S)
