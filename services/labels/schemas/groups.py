"""Groups on the wire."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from services.labels.groups import NewGroup, NewImage
from services.labels.schemas.fields import REQUEST, Count, Finite, Name, Sha256, Text, Time
from services.labels.schemas.labels import LabelView
from services.labels.store.tables import Assignment, Group, GroupImage

MAX_IMAGES = 64
EXAMPLE: JsonDict = {
    "run_id": "run-7",
    "prompt": {"id": "p-12", "text": "two red balls"},
    "policy_version": 3,
    "question_id": "like",
    "images": [{"index": 0, "sha256": "ab" * 32, "seed": 5}],
    "sampler": {"nfe": 4, "seed": 5},
    "auto_rewards": {"detector": [0.75]},
}


class Prompt(BaseModel):
    """What the images were made from."""

    model_config = REQUEST
    id: Annotated[Text, Field(min_length=1, max_length=200)]
    text: Annotated[Text, Field(max_length=4000)]


class GroupImageIn(BaseModel):
    """One image of the group."""

    model_config = REQUEST
    index: Annotated[int, Field(ge=0, lt=MAX_IMAGES)]
    sha256: Sha256
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None


class GroupIn(BaseModel):
    """The images of one prompt, to be labelled together."""

    model_config = REQUEST | ConfigDict(json_schema_extra={"example": EXAMPLE})
    run_id: Name
    prompt: Prompt
    policy_version: Count
    question_id: Name
    images: list[GroupImageIn] = Field(min_length=1, max_length=MAX_IMAGES)
    checkpoint_id: Annotated[Text, Field(max_length=200)] | None = None
    sampler: dict[Text, Text | bool | int | Finite | None] = Field({}, max_length=32)
    auto_rewards: dict[Text, list[Finite | None]] = Field(
        {}, max_length=32, description="Name to a value an image, by index; null is missing"
    )
    overlap: Annotated[int, Field(ge=1, le=20)] | None = Field(
        None,
        description="People asked for each image; left out, 1, or for a share of groups 2",
    )
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    deadline_at: Time | None = None
    content_warning: Annotated[Text, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = list(range(len(self.images)))
        if sorted(image.index for image in self.images) != wanted:
            raise ValueError(f"indices of the images must be 0 to {len(wanted) - 1}, each once")
        for name, values in self.auto_rewards.items():
            if len(values) != len(wanted):
                raise ValueError(
                    f"auto_rewards[{name!r}] has {len(values)} values, not {len(wanted)}"
                )
        return self

    def to_group(self, group_id: str) -> NewGroup:
        """As the domain wants it."""
        same = self.model_dump(exclude={"prompt", "images"})
        images = [NewImage(**image.model_dump()) for image in self.images]
        prompt = self.prompt
        return NewGroup(
            id=group_id, prompt_id=prompt.id, prompt_text=prompt.text, images=images, **same
        )


class GroupImageView(BaseModel):
    """One image's place in its group."""

    image_id: str
    index: int
    sha256: str
    seed: int | None
    url: str
    removed: bool = Field(description="It was taken away: its address is 410")


class GroupLease(BaseModel):
    """That a person had a group; whose it was is not told."""

    model_config = ConfigDict(from_attributes=True)
    state: Literal["live", "submitted", "released", "skipped", "expired", "revoked"]
    granted_at: datetime
    finished_at: datetime | None = Field(description="null while it is live")


class GroupView(BaseModel):
    """A group as it stands."""

    group_id: str
    run_id: str
    prompt: Prompt
    question_id: str
    policy_version: int
    checkpoint_id: str | None
    sampler: dict[str, Any]
    auto_rewards: dict[str, Any]
    overlap: int
    priority: int
    deadline_at: datetime | None
    content_warning: str | None
    state: str
    num_labels: int
    num_skips: int
    reward_revision: int
    created_at: datetime
    ready_at: datetime | None
    consumed_at: datetime | None
    images: list[GroupImageView]
    aggregate: dict[str, Any] | None = None
    labels: list[LabelView] | None = None
    leases: list[GroupLease] | None = None

    @classmethod
    def of(
        cls,
        group: Group,
        images: Sequence[GroupImage],
        labels: Sequence[Mapping[str, Any]] | None = None,
        aggregate: bool = False,
        leases: Sequence[Assignment] | None = None,
    ) -> "GroupView":
        """A row with its images, and what was asked for beside."""
        own = {name: getattr(group, name) for name in cls.model_fields if hasattr(group, name)}
        return cls.model_validate(
            {
                **own,
                "group_id": group.id,
                "prompt": {"id": group.prompt_id, "text": group.prompt_text},
                "images": [image_view(image) for image in images],
                "aggregate": group.aggregate if aggregate else None,
                "labels": labels and [LabelView.of(label, "viewer") for label in labels],
                "leases": None if leases is None else [*map(GroupLease.model_validate, leases)],
            }
        )


def image_view(image: GroupImage) -> GroupImageView:
    """A row, and where its bytes are."""
    return GroupImageView(
        image_id=image.id,
        index=image.index,
        sha256=image.sha256,
        seed=image.seed,
        url=f"/api/v1/images/{image.sha256}",
        removed=image.removed_at is not None,
    )


class GroupPage(BaseModel):
    """Groups, newest first."""

    items: list[GroupView]
    next_cursor: str | None
    total: int | None = None


class AggregateImage(BaseModel):
    """The posterior of one image; `mu` is null before anything was labelled."""

    image_id: str
    index: int
    prior: float | None = None
    mu: float | None = None
    n: float = 0.0
    rho: float = 0.0
    var: float | None = None


class AggregateView(BaseModel):
    """What a group's labels say."""

    group_id: str
    run_id: str
    state: str
    reward_revision: int
    policy_version: int
    num_labels: int
    coverage: float
    contrast: bool
    m0: float | None
    images: list[AggregateImage]

    @classmethod
    def of(cls, group: Group, images: Sequence[GroupImage]) -> "AggregateView":
        """The row's aggregate, an entry an image."""
        said = group.aggregate or {"coverage": 0.0, "contrast": False, "m0": None}
        names = [name for name in ("prior", "mu", "n", "rho", "var") if name in said]
        return cls(
            group_id=group.id,
            run_id=group.run_id,
            state=group.state,
            reward_revision=group.reward_revision,
            policy_version=group.policy_version,
            num_labels=group.num_labels,
            coverage=said["coverage"],
            contrast=said["contrast"],
            m0=said["m0"],
            images=[
                AggregateImage(
                    image_id=image.id,
                    index=image.index,
                    **{name: said[name][place] for name in names},
                )
                for place, image in enumerate(images)
            ],
        )
