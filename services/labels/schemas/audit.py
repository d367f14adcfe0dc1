"""The audit log on the wire."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, Field

from services.labels.store.tables import AuditEntry


class AuditView(BaseModel):
    """One change; contents are known by their hashes."""

    seq: int
    actor: str
    actor_name: str | None = Field(description="Of a key, as it is now; null for all others")
    action: str
    object: str
    object_name: str | None = Field(description="Where it is a key")
    before_sha256: str | None
    after_sha256: str | None
    ip_sha256: str | None
    at: datetime

    @classmethod
    def of(cls, row: AuditEntry, names: Mapping[str, str]) -> "AuditView":
        """A row, with the names of the keys that it mentions."""
        named = {"actor_name": names.get(row.actor), "object_name": names.get(row.object)}
        columns = cls.model_fields.keys() - named
        return cls.model_validate(named | {name: getattr(row, name) for name in columns})


class AuditPage(BaseModel):
    """Changes, newest first."""

    items: list[AuditView]
    next_cursor: str | None
    total: int | None = None
