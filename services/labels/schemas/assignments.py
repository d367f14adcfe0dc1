"""Leases on the wire. Blind: no score, seed or policy, and no name but the lease's own, so that no
gold question is told from the others."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from services.labels.schemas.fields import REQUEST, Name, Value
from services.labels.schemas.groups import MAX_IMAGES
from services.labels.schemas.labels import EXAMPLE, LabelIn, LabelView


class ClaimIn(BaseModel):
    """What is wanted."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": {"wait_seconds": 20}})
    question_id: Name | None = None
    wait_seconds: float = Field(
        0, ge=0, le=20, strict=True, description="How long to wait for work"
    )
    holding: list[str] = Field(
        [], max_length=8, description="Assignments that the caller has already: give another one"
    )


class Token(BaseModel):
    """Proof of a lease."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": {"lease_token": "s3cr3t"}})
    lease_token: str = Field(max_length=100)


class SubmitIn(Token):
    """Verdicts on a leased group."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"lease_token": "s3cr3t", "labels": [EXAMPLE]}}
    )
    labels: list[LabelIn] = Field(max_length=MAX_IMAGES)
    final: bool = Field(
        True, description="false keeps the lease; true wants every image of it answered"
    )


class PromptText(BaseModel):
    """What the images were to show."""

    text: str


class QuestionText(BaseModel):
    """What is asked."""

    question_id: str
    text: str


class AssignedGroup(BaseModel):
    """What a person may know of a group."""

    prompt: PromptText
    question: QuestionText
    content_warning: str | None


class AssignedImage(BaseModel):
    """An image, where it is shown, and what this person has said of it before."""

    image_id: str
    url: str
    position: int
    value: Value | None


class AssignmentView(BaseModel):
    """A lease: these images of the group are the caller's until it ends."""

    assignment_id: str
    lease_token: str
    lease_expires_at: datetime
    lease_seconds: float = Field(description="Left of it")
    group: AssignedGroup
    images: list[AssignedImage]
    guidelines_version: int
    guidelines: str


class HeartbeatView(BaseModel):
    """How long the lease is now."""

    assignment_id: str
    lease_expires_at: datetime
    lease_seconds: float


class RevokedView(BaseModel):
    """What has become of a lease."""

    assignment_id: str
    state: str = Field(description="revoked; released, skipped or expired where it was over before")


class SubmittedView(BaseModel):
    """What has been stored."""

    assignment_id: str
    state: str
    lease_expires_at: datetime
    labels: list[LabelView]
