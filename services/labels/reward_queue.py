"""Groups' aggregates on their way to the trainer: at least once, order not promised.

pending -> inflight (received: hidden until `visible_at`) -> acked; unacked it is received again,
under a new receipt, and after `MAX_RECEIVES` times it is dead, until an admin redrives it. A
receipt is the fence: whoever holds an old one can no longer ack. Consumers tell repeats by
(group_id, reward_revision).
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from services.labels.events import record_event
from services.labels.store.tables import Group, RewardMessage

MAX_RECEIVES = 5
WAITING = ("pending", "inflight")
STALE = "receipt-stale"


@dataclass(frozen=True)
class Receipted:
    """What became of one receipt: 200, or 409 with the reason."""

    receipt: str
    status: int
    detail: str = ""


@dataclass(frozen=True)
class Received:
    """What one receive took out of the queue."""

    messages: list[dict[str, Any]]
    """As consumers see them."""
    num_buried: int
    """Messages that became dead letters instead."""
    first_ages_s: list[float]
    """How long those that were taken for the first time had waited."""


@dataclass(frozen=True)
class QueueState:
    """How full the queue is."""

    depth: int
    """Messages that could be received now."""
    in_flight: int
    """Received, neither acked nor visible again."""
    dead: int
    """Given up after `MAX_RECEIVES` receives."""
    oldest_created_at: datetime | None
    """Of the messages neither acked nor dead."""


def anything_visible(session: Session, run_id: str | None, now: datetime) -> bool:
    """Whether `receive` would find a message; a look that writes nothing."""
    return session.scalar(select(RewardMessage.group_id).where(*_visible(run_id, now))) is not None


def runs_with_messages(session: Session, now: datetime) -> frozenset[str]:
    """The runs for which a message could be received now."""
    runs = select(RewardMessage.run_id).where(*_visible(None, now)).distinct()
    return frozenset(session.scalars(runs))


def receive(
    session: Session,
    max_groups: int,
    visibility_seconds: float,
    run_id: str | None,
    now: datetime,
) -> Received:
    """Take up to `max_groups` messages, oldest first, and hide them for `visibility_seconds`.

    Messages received `MAX_RECEIVES` times already become dead letters instead.
    """
    found = (
        select(RewardMessage)
        .where(*_visible(run_id, now))
        .order_by(RewardMessage.created_at, RewardMessage.group_id, RewardMessage.reward_revision)
        .with_for_update(skip_locked=True)
    )
    taken: list[dict[str, Any]] = []
    first_ages_s: list[float] = []
    num_buried = 0
    while len(taken) < max_groups:
        messages = session.scalars(found.limit(max_groups - len(taken))).all()
        if not messages:
            break
        for message in messages:
            if message.receive_count >= MAX_RECEIVES:
                _bury(session, message, now)
                num_buried += 1
                continue
            if message.receive_count == 0:
                first_ages_s.append((now - message.created_at).total_seconds())
            taken.append(_hand_out(message, now + timedelta(seconds=visibility_seconds)))
        session.flush()  # so that the next look sees what was taken and buried
    return Received(taken, num_buried, first_ages_s)


def ack(session: Session, receipts: Sequence[str], now: datetime) -> list[Receipted]:
    """The consumer has these; their groups are consumed. Acking twice is fine."""
    return [_ack(session, receipt, now) for receipt in receipts]


def nack(
    session: Session, receipts: Sequence[str], reason: str | None, now: datetime
) -> list[Receipted]:
    """The consumer cannot take these: visible again at once, with the reason kept."""

    def give_back(message: RewardMessage) -> None:
        message.state, message.visible_at, message.reason = "pending", now, reason

    return [_change(session, receipt, give_back) for receipt in receipts]


def extend(
    session: Session, receipts: Sequence[str], visibility_seconds: float, now: datetime
) -> list[Receipted]:
    """Hide these for `visibility_seconds` from now on."""

    def hide(message: RewardMessage) -> None:
        message.state, message.visible_at = "inflight", now + timedelta(seconds=visibility_seconds)

    return [_change(session, receipt, hide) for receipt in receipts]


def state(session: Session, now: datetime, run_id: str | None = None) -> QueueState:
    """How full the queue is, of one run or over all."""
    of_run = [] if run_id is None else [RewardMessage.run_id == run_id]
    in_flight = (RewardMessage.state == "inflight", RewardMessage.visible_at > now)
    oldest = select(func.min(RewardMessage.created_at)).where(RewardMessage.state.in_(WAITING))
    return QueueState(
        depth=_count(session, *_visible(run_id, now)),
        in_flight=_count(session, *in_flight, *of_run),
        dead=_count(session, RewardMessage.state == "dead", *of_run),
        oldest_created_at=session.scalar(oldest.where(*of_run)),
    )


def dead_letters(
    session: Session, limit: int = 100, run_id: str | None = None
) -> Sequence[RewardMessage]:
    """The dead letters of one run or of all, oldest first."""
    dead = select(RewardMessage).where(RewardMessage.state == "dead")
    if run_id is not None:
        dead = dead.where(RewardMessage.run_id == run_id)
    return session.scalars(dead.order_by(RewardMessage.created_at).limit(limit)).all()


def redrive(session: Session, now: datetime) -> int:
    """Put every dead letter back, as if it had never been received; how many."""
    dead = select(RewardMessage).where(RewardMessage.state == "dead")
    messages = session.scalars(dead.with_for_update(skip_locked=True)).all()
    for message in messages:
        message.state, message.receive_count, message.visible_at = "pending", 0, now
        message.receipt, message.reason = None, None
    return len(messages)


def _visible(run_id: str | None, now: datetime) -> list[ColumnElement[bool]]:
    conditions = [RewardMessage.state.in_(WAITING), RewardMessage.visible_at <= now]
    return conditions if run_id is None else [*conditions, RewardMessage.run_id == run_id]


def _hand_out(message: RewardMessage, visible_at: datetime) -> dict[str, Any]:
    message.state, message.visible_at = "inflight", visible_at
    message.receipt = secrets.token_urlsafe(24)
    message.receive_count += 1
    return {
        **message.payload,
        "receipt": message.receipt,
        "group_id": message.group_id,
        "run_id": message.run_id,
        "reward_revision": message.reward_revision,
        "receive_count": message.receive_count,
    }


def _bury(session: Session, message: RewardMessage, now: datetime) -> None:
    last = f"; the last reason given: {message.reason}" if message.reason else ""
    message.state, message.receipt = "dead", None
    message.reason = f"received {message.receive_count} times and never acked{last}"
    data = {"group_id": message.group_id, "reward_revision": message.reward_revision}
    record_event(session, "rewards", "reward.dead", data, now)


def _locked(session: Session, receipt: str) -> RewardMessage | None:
    found = select(RewardMessage).where(RewardMessage.receipt == receipt)
    return session.scalar(found.with_for_update())


def _change(session: Session, receipt: str, change: Callable[[RewardMessage], None]) -> Receipted:
    message = _locked(session, receipt)
    if message is None:
        return _stale(receipt)
    if message.state == "acked":
        return Receipted(receipt, 409, "this message was acked already; nothing is left to change")
    change(message)
    return Receipted(receipt, 200)


def _stale(receipt: str) -> Receipted:
    detail = (
        "no message has this receipt now: its time ran out and it was received again, or it is "
        "dead; whoever holds the newer receipt answers for it"
    )
    return Receipted(receipt, 409, detail)


def _ack(session: Session, receipt: str, now: datetime) -> Receipted:
    message = _locked(session, receipt)
    if message is None:
        return _stale(receipt)
    if message.state == "acked":
        return Receipted(receipt, 200)
    message.state, message.acked_at = "acked", now
    _consume(session, message, now)
    return Receipted(receipt, 200)


def _consume(session: Session, message: RewardMessage, now: datetime) -> None:
    """Ready -> consumed; what expired or was consumed before stays as it is."""
    group = session.get_one(Group, message.group_id, with_for_update=True)
    if group.state != "ready":
        return
    group.state, group.consumed_at = "consumed", now
    group.revision += 1
    data = {"group_id": group.id, "reward_revision": message.reward_revision}
    record_event(session, "groups", "group.consumed", data, now)


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).select_from(RewardMessage).where(*conditions)) or 0
