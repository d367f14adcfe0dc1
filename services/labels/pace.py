"""How long groups take people, and how long they wait for them: of the newest labels, by the
server's clock alone.

A browser claims the next group while its person is still at the one before, so how long a lease
lasted is not how long a person took. Their time on a group runs from when they had it, and had
answered what came before, until they submitted it:

    finished - max(granted, their answer before)

It has whatever else they did meanwhile: the median bears that, the 90th percentile shows it. A
group that they skipped is part of the next one's time, and groups that a browser kept while it was
offline come at once. What clients say of their time (`latency_ms`) is each one's own notion, and
stays out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median, quantiles
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Assignment, Group, Label

HOUR = timedelta(hours=1)
SHORTEST = timedelta(minutes=1)
"""What is shorter tells nothing of an hour."""


@dataclass(frozen=True)
class Seconds:
    """How long something took."""

    median: float
    p90: float
    """Nine of ten took no longer."""
    num_groups: int


@dataclass(frozen=True)
class Pace:
    """Times of the groups that the newest labels are of, gold left out; None where there are
    none."""

    on_a_group: Seconds | None
    """A person's time on a group that they submitted, by the server's clock: since it was granted
    to them and what they answered before it had come."""
    until_ready: Seconds | None
    """From when a group was put until it was ready."""
    ready_an_hour: float | None
    """Groups that became ready, in the last hour or as far as the newest labels reach back; None
    where that is less than a minute."""


def pace(session: Session, now: datetime, newest: Any, limit: int) -> Pace:
    """Of the `newest` labels, a subquery of at most `limit`."""
    took = [
        row.finished_at - max(row.granted_at, row.before_at or row.granted_at)
        for row in session.execute(_submitted(newest))
    ]
    ready = session.execute(_ready(newest)).all()
    num, oldest = session.execute(select(func.count(), func.min(newest.c.received_at))).one()
    since = max(now - HOUR, oldest) if num == limit else now - HOUR
    count = sum(row.ready_at > since for row in ready)
    return Pace(
        _seconds(took),
        _seconds([row.ready_at - row.created_at for row in ready]),
        count * (HOUR / (now - since)) if now - since >= SHORTEST else None,
    )


def _submitted(newest: Any) -> Any:
    """When each was granted and finished, and when its person's answer before it came: gold and
    other runs' groups took their time, too."""
    leases = (
        select(
            Assignment.id,
            Assignment.annotator_id,
            Assignment.granted_at,
            Assignment.finished_at,
            func.min(newest.c.seq).label("first"),
        )
        .join(newest, newest.c.assignment_id == Assignment.id)
        .where(Assignment.state == "submitted", ~newest.c.is_gold)
        .group_by(Assignment.id)
        .subquery()
    )
    before = (
        select(Label.received_at)
        .where(Label.annotator_id == leases.c.annotator_id, Label.seq < leases.c.first)
        .where(Label.assignment_id.is_distinct_from(leases.c.id))
        .order_by(Label.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(leases.c.granted_at, leases.c.finished_at, before.label("before_at"))


def _ready(newest: Any) -> Any:
    """When each was put and ready."""
    ids = select(newest.c.group_id).where(~newest.c.is_gold)
    return select(Group.created_at, Group.ready_at).where(
        Group.id.in_(ids), Group.ready_at.is_not(None)
    )


def _seconds(times: Sequence[timedelta]) -> Seconds | None:
    values = [time.total_seconds() for time in times]
    if len(values) < 2:
        return Seconds(values[0], values[0], 1) if values else None
    return Seconds(median(values), quantiles(values, n=10, method="inclusive")[-1], len(values))
