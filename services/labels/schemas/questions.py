"""Questions on the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from services.labels.schemas.fields import REQUEST, Name, Text
from services.labels.store.tables import Question

EXAMPLE: JsonDict = {
    "question_id": "like",
    "text": "Do you like it?",
    "guidelines": "Go by first sight.",
}


class QuestionIn(BaseModel):
    """What is to be asked."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": EXAMPLE})
    question_id: Name
    text: Annotated[Text, Field(min_length=1, max_length=500)]
    guidelines: Annotated[Text, Field(max_length=20_000)] = ""


class QuestionChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": {"state": "closed"}})
    text: Annotated[Text, Field(min_length=1, max_length=500)] | None = None
    guidelines: Annotated[Text, Field(max_length=20_000)] | None = None
    state: Literal["active", "closed"] | None = None


class QuestionView(BaseModel):
    """A question."""

    question_id: str
    text: str
    guidelines: str
    guidelines_version: int
    state: str
    created_at: datetime
    revision: int

    @classmethod
    def of(cls, row: Question) -> "QuestionView":
        """A row as everybody sees it."""
        own = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(question_id=row.id, **own)


class QuestionPage(BaseModel):
    """Questions, newest first."""

    items: list[QuestionView]
    next_cursor: str | None
    total: int | None = None
