"""Rolled-out groups on the wire."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from services.run_store.forms import GroupEvent
from services.runs_api.group_index import Group


class VerdictView(BaseModel):
    """What a reward said of an image."""

    state: Literal["ready", "pending", "failed", "expired"]
    value: float | None = Field(description="null unless ready: missing is never 0")
    reason: str
    version: str = Field("", description="Of the reward; empty in runs of old")
    latency_s: float | None = Field(None, description="Of the batch; null in runs of old")
    parts: dict[str, float] = Field({}, description="What the value is made of, by name")


class ImageView(BaseModel):
    """A stored image; its pixels are at /runs/{run_id}/images/{sha256}."""

    sample: int
    sha256: str
    is_removed: bool = Field(description="It was stored and its file is gone")
    removed_by: str | None = Field(description="The rule of retention that removed it, if one did")
    predictions: list[str] = Field(
        description="sha256 of the clean prediction of every denoising step but the last, whose "
        "prediction is the image itself; empty where they are not stored"
    )
    rewards: dict[str, VerdictView]


class ScoreView(BaseModel):
    """A reward over the stored images of a group."""

    mean: float | None
    spread: float | None = Field(description="Highest minus lowest; 0 is no contrast")


class GroupView(BaseModel):
    """The stored images of one prompt."""

    group_id: int
    step: int
    policy_version: int
    prompt_id: str
    prompt: str
    sigmas: list[float] = Field(description="Noise levels of its path; empty in runs of old")
    scores: dict[str, ScoreView]
    images: list[ImageView]

    @classmethod
    def of(cls, group: Group, removed: set[str]) -> Self:
        """As it goes out; `removed` are digests without a file."""
        images: list[dict[str, Any]] = [
            {
                "sample": image.sample,
                "sha256": image.digest,
                "is_removed": image.digest in removed,
                "removed_by": image.removed_by if image.digest in removed else None,
                "predictions": image.predictions,
                "rewards": image.rewards,
            }
            for image in group.images
        ]
        scores = {name: vars(score) for name, score in group.scores.items()}
        return cls.model_validate(vars(group) | {"images": images, "scores": scores})


class GroupHistoryView(BaseModel):
    """What has happened to a group."""

    items: list[GroupEvent]


class GroupPage(BaseModel):
    """Some groups, and where to go on."""

    items: list[GroupView]
    next_cursor: str | None
