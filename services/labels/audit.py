"""The append-only log of who changed what."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from services.labels.store.tables import AuditEntry
from services.web.auth import Principal


def record_audit(
    session: Session,
    by: Principal | str,
    action: str,
    object: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Append one entry; contents are kept as hashes, so that the log tells no secret. `by` is who
    asked, or the name of a command (`cli`)."""
    entry = AuditEntry(
        actor=by if isinstance(by, str) else by.actor,
        action=action,
        object=object,
        before_sha256=_digest(before),
        after_sha256=_digest(after),
        ip_sha256=None if isinstance(by, str) else by.ip_sha256,
        at=now,
    )
    session.add(entry)


def _digest(content: Mapping[str, Any] | None) -> str | None:
    if content is None:
        return None
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
