"""Where the answers of idempotent requests are kept: in the table `idempotency`."""

from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labels.store.tables import IdempotencyRecord
from services.web.idempotency import KEPT_FOR, Attempt, Kept, still_running


class KeptAnswers:
    """`services.web.idempotency.Memory` over the database."""

    def find(self, session: Session, attempt: Attempt, now: datetime) -> Kept | None:
        """What was answered; an answer older than a day is forgotten here."""
        record = session.get(IdempotencyRecord, (attempt.key_id, attempt.route, attempt.key))
        if record is None:
            return None
        if record.created_at < now - KEPT_FOR:
            session.delete(record)
            session.flush()
            return None
        headers = {name: str(value) for name, value in record.headers.items()}
        return Kept(record.body_sha256, record.status, headers, record.body)

    def keep(self, session: Session, attempt: Attempt, kept: Kept, now: datetime) -> None:
        """Write it down in the operation's transaction."""
        record = IdempotencyRecord(
            key_id=attempt.key_id,
            route=attempt.route,
            key=attempt.key,
            body_sha256=kept.body_sha256,
            status=kept.status,
            headers=kept.headers,
            body=kept.body,
            created_at=now,
        )
        session.add(record)
        try:
            session.flush()
        except IntegrityError as error:  # Another process was faster; this one's work is undone.
            raise still_running() from error


def forget_old_answers(session: Session, now: datetime) -> None:
    """Drop what is older than a day; housekeeping, nothing depends on it."""
    session.execute(delete(IdempotencyRecord).where(IdempotencyRecord.created_at < now - KEPT_FOR))
