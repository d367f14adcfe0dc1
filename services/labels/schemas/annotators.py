"""People on the wire, as admins see them."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.labels.schemas.fields import Text
from services.labels.store.tables import Annotator


class NewAnnotator(BaseModel):
    """A person to be."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "Ann"}})
    name: Text = Field(min_length=1, max_length=200, description="Seen by admins only")


class AnnotatorView(BaseModel):
    """A person who labels."""

    annotator_id: str
    name: str
    state: Literal["active", "excluded", "erased"]
    external_ref: str | None = Field(description="Their name in the app that labels for them")
    weight: float = Field(description="Of their votes: 0 below the gold bar")
    gold_right: int
    gold_answered: int
    created_at: datetime

    @classmethod
    def of(cls, row: Annotator) -> "AnnotatorView":
        """A row as an admin sees it."""
        return cls(
            annotator_id=row.id,
            name=row.name,
            state=row.state,  # type: ignore[arg-type]
            external_ref=row.external_ref,
            weight=row.weight,
            gold_right=row.gold_right,
            gold_answered=row.gold_answered,
            created_at=row.created_at,
        )


class AnnotatorPage(BaseModel):
    """People, newest first."""

    items: list[AnnotatorView]
    next_cursor: str | None
    total: int | None = None


class NewInvite(BaseModel):
    """What the invited may be."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"role": "annotator"}})
    role: Literal["annotator", "viewer", "admin"] = "annotator"


class InviteView(BaseModel):
    """A link that works once."""

    url: str | None = Field(description="Under this service; null when the answer is replayed")
    expires_at: datetime
