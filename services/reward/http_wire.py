"""What a scorer of your own is sent over HTTP and what it answers; docs/http_reward.json says it.

A request is multipart/form-data: a part `request` (ScoreRequest as JSON) and one lossless PNG an
item, in the part that the item's `image` names. The answer is a ScoreResponse as JSON.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

PROTOCOL: Literal[1] = 1


class ScoreItem(BaseModel):
    """One image to judge."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    image: str
    """Name of the multipart part that holds its PNG."""
    prompt: str
    """The text that it was made for."""
    prompt_id: str
    """Where that text stands: file:line."""
    metadata: dict[str, Any]
    """What else the prompt file says of it."""
    group: int = Field(ge=0)
    """Images with the same number are to be compared; where `groupwise` is false each is alone."""


class ScoreRequest(BaseModel):
    """One batch."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    protocol: Literal[1]
    """Changes when the form of requests or answers does."""
    groupwise: bool
    """Whether the values of a group's images may depend on one another."""
    items: list[ScoreItem] = Field(min_length=1)
    """The images, groups one after the other."""


class ScoreAnswer(BaseModel):
    """What one image is worth."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    value: float | None
    """The reward; null where the scorer could not judge the image."""
    parts: dict[str, float] = {}
    """Named components, for people."""
    reason: str = ""
    """A short explanation, or why there is no value."""


class ScoreResponse(BaseModel):
    """One answer an item, in the same order."""

    model_config = ConfigDict(strict=True, use_attribute_docstrings=True)

    protocol: Literal[1]
    """The request's."""
    version: str = Field(min_length=1)
    """The scorer's own; changes whenever the same image could get another value."""
    answers: list[ScoreAnswer]
    """As many as there were items."""


def wire_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of both documents."""
    _, schema = models_json_schema(
        [(ScoreRequest, "validation"), (ScoreResponse, "validation")],
        title="A tdm-r1 reward over HTTP",
        description="POST multipart/form-data: `request` (ScoreRequest), and a PNG an item. "
        "The answer is a ScoreResponse.",
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
