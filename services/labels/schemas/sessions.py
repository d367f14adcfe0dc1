"""Browser sessions on the wire."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from services.labels.store.tables import BrowserSession
from services.web.keys import Role


class Login(BaseModel):
    """What an invite link has after its #."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"invite": "tdmr1i_..."}}
    )
    invite: str = Field(min_length=1, max_length=200)


class SessionView(BaseModel):
    """Who the browser's cookie stands for."""

    annotator_id: str | None
    role: Role
    csrf_token: str = Field(description="To be sent as X-CSRF-Token with whatever changes things")
    expires_at: datetime

    @classmethod
    def of(cls, row: BrowserSession) -> "SessionView":
        """A row as its owner sees it."""
        return cls(
            annotator_id=row.annotator_id,
            role=row.role,  # type: ignore[arg-type]
            csrf_token=row.csrf_token,
            expires_at=row.expires_at,
        )
