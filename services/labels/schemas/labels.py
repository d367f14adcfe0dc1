"""Labels on the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from services.labels.schemas.fields import REQUEST, Count, Text, Time, Value

EXAMPLE: JsonDict = {"image_id": "01JZ0000000000000000000000", "value": "like"}
MAX_BATCH = 1000
BLIND = {"group_id", "run_id", "policy_version"}
"""What an annotator is not told of their labels: gold may be named otherwise, and is old."""


class LabelIn(BaseModel):
    """A verdict of the caller."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": EXAMPLE})
    image_id: str = Field(max_length=26, description="As the group's images name it")
    value: Value
    note: Annotated[Text, Field(max_length=2000)] | None = None
    flags: list[Annotated[Text, Field(max_length=50)]] = Field([], max_length=10)
    latency_ms: Count | None = Field(None, description="Time between seeing and saying")
    shown_at: Time | None = Field(None, description="By the sender's clock; kept, never used")
    client_ref: Annotated[Text, Field(max_length=200)] | None = None


class PushedLabel(LabelIn):
    """A verdict without a lease."""

    model_config = ConfigDict(json_schema_extra={"example": {**EXAMPLE, "annotator_ref": "user-7"}})
    annotator_ref: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Whose it is in the sender's app (scope labels:on_behalf)"
    )


class LabelBatch(BaseModel):
    """Up to 1,000 verdicts."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": {"labels": [EXAMPLE]}})
    labels: list[PushedLabel] = Field(min_length=1, max_length=MAX_BATCH)


class LabelChange(BaseModel):
    """What to amend; what is left out stays. A retracted label comes back."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": {"value": "dislike"}})
    value: Value | None = None
    note: Annotated[Text, Field(max_length=2000)] | None = None


class LabelView(BaseModel):
    """A label as it stands."""

    id: str
    seq: int = Field(description="Later labels have higher numbers")
    image_id: str
    group_id: str | None = Field(description="Null, as run and policy, to an annotator")
    run_id: str | None
    question_id: str
    annotator_id: str
    assignment_id: str | None
    guidelines_version: int
    value: Value
    note: str | None
    flags: list[str]
    position: int | None
    latency_ms: int | None
    shown_at: datetime | None
    received_at: datetime
    source: str
    client_ref: str | None
    policy_version: int | None
    retracted_at: datetime | None
    revision: int

    @classmethod
    def of(cls, label: Mapping[str, Any], role: str) -> "LabelView":
        """A label's columns as a caller of this role sees them. Annotators are blind: nothing tells
        them whether it is gold."""
        shown = cls.model_fields.keys() - (BLIND if role == "annotator" else ())
        return cls.model_validate(
            {name: label[name] for name in shown} | dict.fromkeys(BLIND - shown)
        )


class LabelPage(BaseModel):
    """Labels: newest first, or by `seq` from `since_seq` on."""

    items: list[LabelView]
    next_cursor: str | None
    total: int | None = None


class BatchItem(BaseModel):
    """What became of one verdict: 201 new, 200 there already, else its problem."""

    index: int
    status: int
    id: str | None = None
    problem: dict[str, Any] | None = None


class BatchView(BaseModel):
    """An answer a verdict, in order."""

    results: list[BatchItem]
