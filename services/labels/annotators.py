"""People as rows: made, shut out and let in again, and forgotten without losing their votes."""

from datetime import datetime
from typing import Literal

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.labels.aggregation import refresh_later
from services.labels.audit import record_audit
from services.labels.events import record_event
from services.labels.sessions import end_sessions_of
from services.labels.store.tables import Annotator, ApiKey, Invite
from services.web.auth import Principal
from services.web.ids import new_id
from services.web.problems import Problem

ERASED_NAME = "erased"


def create_annotator(session: Session, name: str, now: datetime, by: Principal | str) -> Annotator:
    """A person who can then get keys and invites."""
    row = Annotator(id=new_id(now), name=name, created_at=now)
    session.add(row)
    session.flush()
    _record(session, "create", row, None, by, now)
    return row


def find_annotator(session: Session, annotator_id: str) -> Annotator:
    """404 where there is none."""
    row = session.get(Annotator, annotator_id)
    if row is None:
        raise Problem(404, "not-found", "No such annotator", f"no annotator {annotator_id!r}")
    return row


def set_state(
    session: Session,
    row: Annotator,
    state: Literal["active", "excluded"],
    now: datetime,
    by: Principal,
) -> None:
    """Exclude somebody, whose votes then count no more, or include them again; reversible. The
    groups they labelled are aggregated again by the sweep, within seconds."""
    _check_not_erased(row)
    if row.state == state:
        return
    before = facts(row)
    row.state = state
    row.revision += 1
    refresh_later(session, row.id)
    if state == "excluded":
        end_sessions_of(session, row.id, now)
    session.flush()
    refresh_later(session, row.id)
    _record(session, "exclude" if state == "excluded" else "include", row, before, by, now)


def erase_identity(session: Session, row: Annotator, now: datetime, by: Principal) -> None:
    """Forget who somebody was, for good; their votes stay and count as before. Their sessions,
    invites and keys end."""
    _check_not_erased(row)
    before = facts(row)
    row.name, row.external_ref, row.state = ERASED_NAME, None, "erased"
    row.revision += 1
    end_sessions_of(session, row.id, now)
    session.execute(
        update(Invite)
        .where(Invite.annotator_id == row.id, Invite.used_at.is_(None))
        .values(used_at=now)
    )
    session.execute(
        update(ApiKey)
        .where(ApiKey.annotator_id == row.id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now, revision=ApiKey.revision + 1)
    )
    _record(session, "erase-identity", row, before, by, now)


def facts(row: Annotator) -> dict[str, object]:
    """What the audit's hashes are of."""
    return {"name": row.name, "state": row.state, "external_ref": row.external_ref}


def _check_not_erased(row: Annotator) -> None:
    if row.state == "erased":
        detail = f"annotator {row.id} is erased, which cannot be undone; create a new one"
        raise Problem(409, "annotator-erased", "This annotator is erased", detail)


def _record(
    session: Session,
    action: str,
    row: Annotator,
    before: dict[str, object] | None,
    by: Principal | str,
    now: datetime,
) -> None:
    record_audit(session, by, f"annotator.{action}", row.id, before, facts(row), now)
    data = {"annotator_id": row.id, "state": row.state}
    record_event(session, "annotators", f"annotator.{action}", data, now, "admin")
