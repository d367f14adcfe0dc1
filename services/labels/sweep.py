"""What time does to groups and leases, done once a second; nothing waits for it to be right."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.labels import leases
from services.labels.aggregation import refresh, refresh_due
from services.labels.store.tables import Assignment, DueRefresh, Group

if TYPE_CHECKING:
    from services.labels.settings import Settings

BATCH = 64
"""Groups that one sweep settles, so that no label waits long behind it."""


@dataclass(frozen=True)
class Swept:
    """What a sweep found."""

    num_leases: int
    """Leases that had run out."""
    num_deadlines: int
    """Open groups past their deadline."""
    num_refreshed: int
    """Groups whose votes count otherwise than before."""

    @property
    def is_full(self) -> bool:
        """Whether there may be more at once."""
        return max(self.num_deadlines, self.num_refreshed) >= BATCH


def sweep(session: Session, now: datetime, settings: "Settings") -> Swept:
    """Expire leases, end groups past their deadline, refresh those whose people were gated."""
    num_leases = leases.expire(session, now)
    ids = session.scalars(_past(now).limit(BATCH)).all()
    if ids:
        refresh(session, ids, now, settings)
    num_refreshed = refresh_due(session, now, settings, BATCH)
    return Swept(num_leases, len(ids), num_refreshed)


def is_due(session: Session, now: datetime) -> bool:
    """Whether a sweep would find anything; a look that writes nothing."""
    over = select(Assignment.id).where(Assignment.state == "live", Assignment.expires_at <= now)
    queries = (over, _past(now), select(DueRefresh.group_id))
    return any(session.scalar(query.limit(1)) is not None for query in queries)


def _past(now: datetime) -> Select[str]:
    past = (Group.state == "open", Group.deadline_at <= now, ~Group.is_gold)
    return select(Group.id).where(*past).order_by(Group.deadline_at)
