"""The transactional outbox: events on their way to webhooks, and what became of each try.

pending -> delivered, or failed after the last attempt. A delivery that is being sent is pending
with `next_at` in the future, so a sender that dies leaves it to be sent again: at least once.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.orm import Session

from services.labels.store.tables import Delivery, Event, Webhook, core
from services.web.ids import new_id

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=24)
MAX_ATTEMPTS = 10  # pauses of 5 s times 4^n, at most a day: given up after some three days
SENDING_TIME = timedelta(seconds=60)
IN_FLIGHT_PER_WEBHOOK = 4
GONE = 410

_deliveries = core(Delivery)
_hooks = core(Webhook)
_ACTIVE = select(_hooks.c.id, _hooks.c.topics).where(_hooks.c.state == "active")


@dataclass(frozen=True)
class Parcel:
    """A delivery as its sender needs it."""

    delivery_id: str
    webhook_id: str
    url: str
    secret: str
    attempt: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What one attempt came to; a status from 200 to 299 is a delivery."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300


def listeners(session: Session, topic: str) -> list[str]:
    """Ids of the active webhooks of the topic."""
    return [hook.id for hook in session.execute(_ACTIVE) if topic in hook.topics]


def enqueue(
    session: Session, webhook_ids: Sequence[str], event_seqs: Sequence[int], now: datetime
) -> None:
    """Deliveries of these events to these webhooks, due at once, in the events' transaction."""
    rows = [_delivery(webhook, seq, now) for webhook in webhook_ids for seq in event_seqs]
    if rows:
        session.execute(insert(_deliveries), rows)


def add_delivery(session: Session, webhook_id: str, event_seq: int, now: datetime) -> Delivery:
    """A delivery that is due at once."""
    delivery = Delivery(**_delivery(webhook_id, event_seq, now))
    session.add(delivery)
    return delivery


def _delivery(webhook_id: str, event_seq: int, now: datetime) -> dict[str, Any]:
    same = {"id": new_id(now), "next_at": now, "created_at": now}
    return {**same, "webhook_id": webhook_id, "event_seq": event_seq}


def claim(session: Session, now: datetime) -> list[Parcel]:
    """Take what is due, a few a webhook, so that a slow receiver holds up nobody else."""
    parcels: list[Parcel] = []
    for hook in session.scalars(select(Webhook).where(Webhook.state == "active")).all():
        due = (
            select(Delivery)
            .where(Delivery.webhook_id == hook.id)
            .where(Delivery.state == "pending", Delivery.next_at <= now)
            .order_by(Delivery.next_at)
            .limit(IN_FLIGHT_PER_WEBHOOK)
            .with_for_update(skip_locked=True)
        )
        for delivery in session.scalars(due).all():
            parcels.append(_take(session, hook, delivery, now))
    return parcels


def anything_due(session: Session, now: datetime) -> bool:
    """Whether `claim` would find something; a look that writes nothing."""
    due = (
        select(Delivery.id)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .where(Webhook.state == "active")
        .where(Delivery.state == "pending", Delivery.next_at <= now)
    )
    return session.scalar(due.limit(1)) is not None


def settle(session: Session, parcel: Parcel, outcome: Outcome, now: datetime) -> None:
    """Write down what an attempt came to, and when the next one is due."""
    delivery = session.get(Delivery, parcel.delivery_id)
    hook = session.get(Webhook, parcel.webhook_id)
    if delivery is None or hook is None or delivery.state != "pending":
        return  # removed, or another sender was quicker
    delivery.last_status, delivery.last_error = outcome.status, outcome.error
    if outcome.delivered:
        delivery.state, delivery.delivered_at = "delivered", now
        hook.num_failures = 0
        return
    hook.num_failures += 1
    exhausted = parcel.attempt >= MAX_ATTEMPTS
    if exhausted:
        delivery.state = "failed"
    delivery.next_at = now + pause_after(parcel.attempt, outcome.retry_after_s)
    if exhausted or outcome.status == GONE:
        # Days of failures, or a receiver that says it is gone: an admin must look at it.
        hook.state = "disabled"
        hook.revision += 1


def pause_after(attempt: int, retry_after_s: float | None = None) -> timedelta:
    """How long to wait after the attempt of that number: 5 s times 4^n, spread, at most a day."""
    pause = min(FIRST_PAUSE * 4 ** (attempt - 1), LONGEST_PAUSE)
    pause *= random.uniform(0.9, 1.0)  # so that an outage's deliveries do not come back as one
    if retry_after_s is not None:
        pause = max(pause, timedelta(seconds=retry_after_s))
    return min(pause, LONGEST_PAUSE)


def replay(
    session: Session, webhook_id: str, delivery_ids: Sequence[str] | None, now: datetime
) -> int:
    """Send deliveries again, under the ids they had: those named, or all that failed; how many."""
    again = update(Delivery).where(Delivery.webhook_id == webhook_id)
    if delivery_ids is None:
        again = again.where(Delivery.state == "failed")
    else:
        again = again.where(Delivery.id.in_(delivery_ids))
    result = session.execute(again.values(state="pending", attempts=0, next_at=now))
    return int(result.rowcount)  # pyright: ignore[reportAttributeAccessIssue]


def forget_old(session: Session, before: datetime, limit: int = 1000) -> int:
    """Drop up to `limit` events of before then, and deliveries that are over; how many events.

    What is still to be sent keeps its event, and the newest event stays: it says where we are.
    """
    over = and_(Delivery.created_at < before, Delivery.state != "pending")
    session.execute(delete(Delivery).where(over))
    owed = select(Delivery.event_seq)
    newest = select(func.max(Event.seq)).scalar_subquery()
    # The first ones only: events are numbered as they come, so behind a young one all are young.
    first = select(Event.seq, Event.at).where(Event.seq < newest, Event.seq.not_in(owed))
    first = first.order_by(Event.seq).limit(limit).subquery()
    seqs = session.scalars(select(first.c.seq).where(first.c.at < before)).all()
    session.execute(delete(Event).where(Event.seq.in_(seqs)))
    return len(seqs)


def _take(session: Session, hook: Webhook, delivery: Delivery, now: datetime) -> Parcel:
    event = session.get_one(Event, delivery.event_seq)
    delivery.attempts += 1
    delivery.next_at = now + SENDING_TIME
    return Parcel(
        delivery_id=delivery.id,
        webhook_id=hook.id,
        url=hook.url,
        secret=hook.secret,
        attempt=delivery.attempts,
        body={
            "type": event.type,
            "timestamp": event.at.isoformat(),
            "data": {"seq": event.seq, "topic": event.topic, **event.data},
        },
    )
