"""What happened, written in the transaction in which it happened."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from services.labels.store.tables import Event


def record_event(
    session: Session,
    topic: str,
    type: str,
    data: Mapping[str, Any],
    now: datetime,
    audience: str = "viewer",
) -> None:
    """Append an event of small JSON-able `data`; whoever listens sees it after the commit."""
    session.add(Event(topic=topic, type=type, data=dict(data), audience=audience, at=now))
