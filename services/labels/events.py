"""What happened, written in the transaction in which it happened, and read in one order by all.

An event's `seq` is its place in the stream and the id that a listener resumes at. On SQLite one
writer makes the order of numbers the order of commits. On PostgreSQL a transaction may take number
5 and commit after number 6: a reader that went by the highest number would never see 5. So every
transaction that writes holds a shared advisory lock until it ends (shared: nobody waits), and a
reader passes a number only when every transaction that held the lock then has ended.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.labels.outbox import enqueue, listeners
from services.labels.store.many import insert_many
from services.labels.store.tables import Event, core
from services.labels.store.writer import ORDER_LOCK

TOPICS = ("labels", "groups", "rewards", "annotators", "system")
EVERYBODY = "everybody"
_events = core(Event)
_WRITERS = text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 "
    "AND objid = :key AND objsubid = 1 AND granted "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True)
class Horizon:
    """The highest number to be seen, and the transactions that may yet commit a lower one."""

    newest: int
    writers: frozenset[str]


def record_event(
    session: Session,
    topic: str,
    type: str,
    data: Mapping[str, Any],
    now: datetime,
    audience: str = "viewer",
    deliver: bool = True,
) -> int:
    """Append an event of small JSON-able `data`, its number; listeners see it after the commit.

    `audience` is everybody; viewer (viewer, service and admin); admin; or annotator:<id>, that
    person and admins. Webhooks of the topic get a delivery in the same transaction (`deliver`).
    """
    (seq,) = record_events(session, topic, [(type, data)], now, audience, deliver)
    return seq


def record_events(
    session: Session,
    topic: str,
    events: Sequence[tuple[str, Mapping[str, Any]]],
    now: datetime,
    audience: str = "viewer",
    deliver: bool = True,
) -> list[int]:
    """`record_event` of several (type, data) at once, in as many statements as for one."""
    _lock(session)
    same = {"topic": topic, "audience": audience, "at": now}
    rows = [{**same, "type": type, "data": dict(data)} for type, data in events]
    # Past the object layer: every label comes by here.
    seqs = sorted(row.seq for row in insert_many(session, _events, rows, ("seq",)))
    if deliver:
        enqueue(session, listeners(session, topic), seqs, now)
    return seqs


def audiences(role: str, annotator_id: str | None) -> frozenset[str] | None:
    """The audiences that a caller belongs to; None is all of them.

    Annotators label blind, so of other people's work they hear nothing.
    """
    if role == "admin":
        return None
    own = {f"annotator:{annotator_id}"} if annotator_id else set[str]()
    shared = {EVERYBODY} if role == "annotator" else {EVERYBODY, "viewer"}
    return frozenset(own | shared)


def look(session: Session) -> Horizon:
    """How far events go at this moment, and who is still writing."""
    # The number first: whoever is not seen writing after it has committed everything below it.
    newest = session.scalar(select(func.max(Event.seq))) or 0
    if not _is_postgresql(session):
        return Horizon(newest, frozenset())
    writers = session.scalars(_WRITERS, {"key": ORDER_LOCK})
    return Horizon(newest, frozenset(writers))


def oldest(session: Session) -> int:
    """The lowest number kept, or 0 where there is no event."""
    return session.scalar(select(func.min(Event.seq))) or 0


def read_between(
    session: Session, after: int, until: int, limit: int, topics: Collection[str] | None = None
) -> Sequence[Event]:
    """Up to `limit` events with after < seq <= until, in order; of `topics` only, if given."""
    found = select(Event).where(Event.seq > after, Event.seq <= until)
    if topics is not None:
        found = found.where(Event.topic.in_(topics))
    return session.scalars(found.order_by(Event.seq).limit(limit)).all()


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _lock(session: Session) -> None:
    """The writer has done so for all that it runs."""
    if _is_postgresql(session) and "ordered" not in session.get_bind().get_execution_options():
        session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": ORDER_LOCK})
