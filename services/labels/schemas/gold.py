"""Gold groups on the wire; admins alone see them."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from services.labels.schemas.fields import REQUEST, Text
from services.labels.schemas.groups import MAX_IMAGES
from services.labels.store.tables import Group, GroupImage

EXAMPLE: JsonDict = {
    "answers": [{"index": 0, "answer": "dislike", "reason": "three balls, not two"}]
}


class AnswerIn(BaseModel):
    """What is right for one image, and why."""

    model_config = REQUEST
    index: Annotated[int, Field(ge=0, lt=MAX_IMAGES)]
    answer: Literal["like", "dislike"]
    reason: Annotated[Text, Field(max_length=500)] | None = None


class GoldIn(BaseModel):
    """The answers; an image without one is no test."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": EXAMPLE})
    answers: list[AnswerIn] = Field(min_length=1, max_length=MAX_IMAGES)


class GoldAnswerView(BaseModel):
    """The answer to one image."""

    image_id: str
    index: int
    sha256: str
    answer: str | None
    reason: str | None


class GoldView(BaseModel):
    """A gold group."""

    group_id: str
    question_id: str
    state: str
    revision: int
    answers: list[GoldAnswerView]

    @classmethod
    def of(cls, group: Group, images: Sequence[GroupImage]) -> "GoldView":
        """A row with its images' answers."""
        answers = [
            GoldAnswerView(
                image_id=image.id,
                index=image.index,
                sha256=image.sha256,
                answer=image.gold_answer,
                reason=image.gold_reason,
            )
            for image in images
        ]
        return cls(
            group_id=group.id,
            question_id=group.question_id,
            state=group.state,
            revision=group.revision,
            answers=answers,
        )


class GoldPage(BaseModel):
    """Gold groups, newest first."""

    items: list[GoldView]
    next_cursor: str | None
    total: int | None = None
