"""API keys on the wire."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from services.labels.api_keys import DEFAULT_DAYS
from services.labels.schemas.fields import Text
from services.labels.store.tables import ApiKey
from services.web.keys import Role


class NewKey(BaseModel):
    """What a key is made of."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "trainer of run 7", "role": "service"}},
    )
    name: Text = Field(min_length=1, max_length=200, description="What it is for")
    role: Role
    scopes: list[str] = Field([], max_length=10, description="What it may beyond its role")
    annotator_id: str | None = Field(None, description="Whom it labels as (role annotator)")
    expires_in_days: float | None = Field(
        DEFAULT_DAYS, gt=0, le=3650, strict=True, description="null: never"
    )


class KeyView(BaseModel):
    """A key's public half."""

    key_id: str
    name: str
    role: Role
    scopes: list[str]
    annotator_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To a minute")

    @classmethod
    def of(cls, row: ApiKey) -> "KeyView":
        """A row as its admins see it."""
        return cls.model_validate({"key_id": row.id, **vars_of(row, cls)})


class CreatedKey(KeyView):
    """A new key, with the text that is shown this once."""

    key: str | None = Field(description="The key itself; null when the answer is replayed")


class KeyPage(BaseModel):
    """Keys, newest first."""

    items: list[KeyView]
    next_cursor: str | None
    total: int | None = None


def vars_of(row: ApiKey, view: type[BaseModel]) -> dict[str, object]:
    """The columns that a view has under the same names."""
    return {name: getattr(row, name) for name in view.model_fields if hasattr(row, name)}
