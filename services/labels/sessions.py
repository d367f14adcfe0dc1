"""Invites and browser sessions as rows: an admin's single-use link becomes a cookie."""

import secrets
from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.labels.audit import record_audit
from services.labels.store.tables import BrowserSession, Invite
from services.web.auth import Principal
from services.web.keys import INVITE_PREFIX, SESSION_PREFIX, new_secret, sha256
from services.web.problems import Problem
from services.web.sessions import LIFETIME, TOUCH_EVERY, is_live

INVITE_LIFETIME = timedelta(days=7)


def create_invite(
    session: Session, annotator_id: str, role: str, now: datetime, by: Principal | str
) -> tuple[Invite, str]:
    """A link's row and its secret, to show once."""
    secret, digest = new_secret(INVITE_PREFIX)
    invite = Invite(
        secret_sha256=digest,
        annotator_id=annotator_id,
        role=role,
        created_at=now,
        expires_at=now + INVITE_LIFETIME,
    )
    session.add(invite)
    facts = {"role": role, "expires_at": invite.expires_at}
    record_audit(session, by, "invite.create", annotator_id, None, facts, now)
    return invite, secret


def start_session(
    session: Session, invite: str, old_cookie: str, now: datetime
) -> tuple[BrowserSession, str]:
    """Use an invite up: a new session's row and its cookie. The session that the browser had before
    ends, so that nobody can plant one. 401 for an unknown, used or expired invite."""
    claimed = session.execute(
        update(Invite)
        .where(Invite.secret_sha256 == sha256(invite))
        .where(Invite.used_at.is_(None), Invite.expires_at > now)
        .values(used_at=now)
        .returning(Invite.annotator_id, Invite.role)
    ).one_or_none()
    if claimed is None:
        detail = "this invite is unknown, used or expired; ask an admin for a new one"
        raise Problem(401, "invite-invalid", "The invite does not work", detail)
    if old_cookie:
        end_session(session, old_cookie, now)
    cookie, digest = new_secret(SESSION_PREFIX)
    row = BrowserSession(
        secret_sha256=digest,
        annotator_id=claimed.annotator_id,
        role=claimed.role,
        csrf_token=secrets.token_urlsafe(32),
        created_at=now,
        last_seen_at=now,
        expires_at=now + LIFETIME,
    )
    session.add(row)
    record_audit(
        session, f"annotator:{claimed.annotator_id}", "session.start", digest[:12], None, None, now
    )
    return row, cookie


def end_session(session: Session, cookie: str, now: datetime) -> None:
    """Nobody can use it from the commit on."""
    row = session.get(BrowserSession, sha256(cookie))
    if row is not None and row.ended_at is None:
        row.ended_at = now


def end_sessions_of(session: Session, annotator_id: str, now: datetime) -> None:
    """All of a person's."""
    session.execute(
        update(BrowserSession)
        .where(BrowserSession.annotator_id == annotator_id, BrowserSession.ended_at.is_(None))
        .values(ended_at=now)
    )


def live_session(session: Session, cookie: str, now: datetime) -> BrowserSession | None:
    """The session that a cookie stands for, if it has neither ended nor expired."""
    row = session.get(BrowserSession, sha256(cookie))
    if row is None or row.ended_at is not None:
        return None
    return row if is_live(row.last_seen_at, row.expires_at, now) else None


def principal_of_session(
    session: Session, cookie: str, now: datetime
) -> tuple[Principal, bool] | None:
    """Who has this cookie, and whether its last use should be written down; None for nobody."""
    row = live_session(session, cookie, now)
    if row is None:
        return None
    principal = Principal(
        "session",
        f"annotator:{row.annotator_id}",
        row.role,  # type: ignore[arg-type]
        frozenset(),
        row.annotator_id,
        row.csrf_token,
    )
    return principal, row.last_seen_at < now - TOUCH_EVERY


def touch_session(session: Session, cookie: str, now: datetime) -> None:
    """It has been used."""
    row = session.get(BrowserSession, sha256(cookie))
    if row is not None:
        row.last_seen_at = now
