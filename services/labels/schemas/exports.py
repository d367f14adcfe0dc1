"""Exports on the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.labels.store.tables import Export


class ExportFilters(BaseModel):
    """Which labels; left out is all of them, of real groups, that were not retracted."""

    model_config = ConfigDict(extra="forbid")
    run_id: str | None = Field(None, max_length=200)
    question_id: str | None = Field(None, max_length=200)
    group_id: str | None = Field(None, max_length=200)
    since_seq: int | None = Field(None, ge=0, le=2**63 - 1, description="Labels after this seq")
    include_gold: bool = False
    include_retracted: bool = False


class NewExport(BaseModel):
    """What to write, and how."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"format": "jsonl", "filters": {"run_id": "run-7"}}},
    )
    format: Literal["jsonl", "csv"] = "jsonl"
    filters: ExportFilters = Field(default_factory=lambda: ExportFilters.model_validate({}))


class ExportView(BaseModel):
    """An export; `manifest` and `file_url` are there when it is done."""

    export_id: str
    state: Literal["pending", "done", "failed"]
    format: Literal["jsonl", "csv"]
    filters: dict[str, Any]
    manifest: dict[str, Any] | None = Field(
        description="schema_version, filters, columns, num_rows, num_bytes, sha256, ..."
    )
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    file_url: str | None

    @classmethod
    def of(cls, row: Export) -> "ExportView":
        """A row."""
        names = [name for name in cls.model_fields if name not in ("export_id", "file_url")]
        url = f"/api/v1/exports/{row.id}/file" if row.state == "done" else None
        return cls.model_validate(
            {
                "export_id": row.id,
                "file_url": url,
                **{name: getattr(row, name) for name in names},
            }
        )


class ExportPage(BaseModel):
    """Exports, newest first."""

    items: list[ExportView]
    next_cursor: str | None
    total: int | None = None
