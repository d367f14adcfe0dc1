"""The audit log on the wire."""

from datetime import datetime

from pydantic import BaseModel

from services.labels.store.tables import AuditEntry


class AuditView(BaseModel):
    """One change; contents are known by their hashes."""

    seq: int
    actor: str
    action: str
    object: str
    before_sha256: str | None
    after_sha256: str | None
    ip_sha256: str | None
    at: datetime

    @classmethod
    def of(cls, row: AuditEntry) -> "AuditView":
        """A row."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class AuditPage(BaseModel):
    """Changes, newest first."""

    items: list[AuditView]
    next_cursor: str | None
    total: int | None = None
