"""API keys as rows: made, looked up, revoked. The secret is shown once and never stored."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from services.labels.audit import record_audit
from services.labels.store.tables import Annotator, ApiKey, core
from services.web.auth import Principal
from services.web.ids import new_id
from services.web.keys import check_grant, matches, new_key
from services.web.pagination import Page
from services.web.sessions import TOUCH_EVERY

DEFAULT_DAYS = 90

_BY_ID = select(core(ApiKey)).where(core(ApiKey).c.id == bindparam("id"))


def create_key(
    session: Session,
    name: str,
    role: str,
    now: datetime,
    by: Principal | str,
    scopes: Sequence[str] = (),
    annotator_id: str | None = None,
    days: float | None = DEFAULT_DAYS,
) -> tuple[ApiKey, str]:
    """A new key's row and its text, to show once; it lives for `days` (None: for ever). ValueError
    where role, scopes and annotator do not fit."""
    check_grant(role, scopes, annotator_id)
    if annotator_id is not None and session.get(Annotator, annotator_id) is None:
        raise ValueError(f"no annotator {annotator_id!r}; create the annotator first")
    key_id = new_id(now)
    text, digest = new_key(key_id)
    row = ApiKey(
        id=key_id,
        name=name,
        role=role,
        scopes=sorted(set(scopes)),
        annotator_id=annotator_id,
        secret_sha256=digest,
        created_at=now,
        expires_at=None if days is None else now + timedelta(days=days),
    )
    session.add(row)
    session.flush()
    record_audit(session, by, "key.create", key_id, None, _facts(row), now)
    return row, text


def find_key(session: Session, key_id: str) -> ApiKey | None:
    """A key's row, whatever its state."""
    return session.get(ApiKey, key_id)


def all_keys(session: Session) -> Sequence[ApiKey]:
    """Every key's row, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id)).all()


def read_keys(
    session: Session, page: Page, role: str | None
) -> tuple[list[ApiKey], str | None, int | None]:
    """A page of keys of all states, newest first, of one role or of all; the cursor after it, and
    how many there are where that is asked."""
    query = select(ApiKey) if role is None else select(ApiKey).where(ApiKey.role == role)
    return page.fetch(session, query, ApiKey.created_at, ApiKey.id)


def live_admins(session: Session, now: datetime) -> set[str]:
    """Ids of the keys by which somebody could make keys."""
    query = select(ApiKey.id).where(_is_live(now), ApiKey.role == "admin")
    return set(session.scalars(query))


def revoke_key(session: Session, row: ApiKey, now: datetime, by: Principal | str) -> None:
    """From the commit on nobody can use it; revoking twice keeps the first time."""
    if row.revoked_at is not None:
        return
    before = _facts(row)
    row.revoked_at = now
    row.revision += 1
    record_audit(session, by, "key.revoke", row.id, before, _facts(row), now)


def any_live_key(session: Session, now: datetime) -> bool:
    """Whether anybody could use the service at all."""
    return bool(session.scalar(select(func.count()).where(_is_live(now))))


def _is_live(now: datetime) -> ColumnElement[bool]:
    lasts = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    return and_(ApiKey.revoked_at.is_(None), lasts)


def principal_of_key(
    session: Session, key_id: str, secret: str, now: datetime
) -> tuple[Principal, bool] | None:
    """Who has this key, and whether its last use should be written down; None for no live key."""
    row = session.execute(_BY_ID, {"id": key_id}).first()
    # An unknown id costs a comparison too, so that its time tells nothing.
    if not matches(secret, row.secret_sha256 if row else "0" * 64) or row is None:
        return None
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    scopes = frozenset(str(scope) for scope in row.scopes)
    principal = Principal("key", row.id, row.role, scopes, row.annotator_id)  # type: ignore[arg-type]
    stale = row.last_used_at is None or row.last_used_at < now - TOUCH_EVERY
    return principal, stale


def touch_key(session: Session, key_id: str, now: datetime) -> None:
    """It has been used."""
    row = session.get(ApiKey, key_id)
    if row is not None:
        row.last_used_at = now


def _facts(row: ApiKey) -> dict[str, object]:
    return {
        "name": row.name,
        "role": row.role,
        "scopes": row.scopes,
        "annotator_id": row.annotator_id,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }
