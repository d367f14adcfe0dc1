"""What the service answers, as far as clients use it; a newer server's further fields are ignored.

Every time is an aware UTC datetime, every duration is in seconds unless its name says otherwise.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Value = Literal["like", "dislike", "unsure", "skip"]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class GroupImage(_Answer):
    """An image's place in its group; labels name it by `image_id`."""

    image_id: str
    index: int
    sha256: str
    seed: int | None = None


class Group(_Answer):
    """A group of images of one prompt, as the service holds it."""

    group_id: str
    run_id: str
    state: str
    images: list[GroupImage] = []
    reward_revision: int = 0
    aggregate: dict[str, Any] | None = None


class AssignedImage(_Answer):
    """An image to be judged, where it is shown and where its bytes are."""

    image_id: str
    url: str
    position: int


class Assignment(_Answer):
    """A leased group; `lease_token` proves the lease when labels are sent."""

    assignment_id: str
    lease_token: str
    lease_expires_at: datetime
    group: dict[str, Any]
    images: list[AssignedImage]
    guidelines_version: int = 1
    guidelines: str = ""


class RewardImage(_Answer):
    """The posterior of one image; `mu` is None where the group expired."""

    image_id: str
    index: int
    mu: float | None = None
    likes: float | None = None
    n: float = 0.0
    rho: float = 0.0


class RewardMessage(_Answer):
    """A group's aggregate, hidden from other consumers until acked or its visibility ends."""

    receipt: str
    group_id: str
    run_id: str
    reward_revision: int
    receive_count: int
    policy_version: int
    coverage: float
    label_seq: int | None = None
    state: Literal["ready", "expired"]
    images: list[RewardImage]


class ReceiptResult(_Answer):
    """What became of one receipt: 200, or 409 where the message was given to somebody else."""

    receipt: str
    status: int
    problem: dict[str, Any] | None = None


class BatchResult(_Answer):
    """What became of one item of a batch: 201 new, 200 already there, or its problem."""

    index: int
    status: int
    id: str | None = None
    problem: dict[str, Any] | None = None


class QueueStats(_Answer):
    """How many reward messages wait, are out, and were given up."""

    depth: int
    in_flight: int
    dead: int
    oldest_age_seconds: float | None = None
    dead_letters: list[dict[str, Any]] = Field(default_factory=list)


class AuditRecord(_Answer):
    """Who changed what; contents are known by their hashes. Keys have names, people do not."""

    seq: int
    actor: str
    actor_name: str | None = None
    action: str
    object: str
    object_name: str | None = None
    at: datetime


class Key(_Answer):
    """An API key without its secret."""

    key_id: str
    name: str
    role: str
    scopes: list[str]
    annotator_id: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class CreatedKey(Key):
    """A new key. Where the first answer was lost, its text is lost too: None; revoke it then."""

    key: str | None = Field(repr=False)


class Invite(_Answer):
    """A link that makes one browser a person's, once; None where the first answer was lost."""

    url: str | None = Field(repr=False)
    expires_at: datetime


class LabelIn(_Answer):
    """A verdict to send; `annotator_ref` names the app's user when a service key speaks for one."""

    image_id: str
    value: Value
    annotator_ref: str | None = None
    note: str | None = None
    flags: list[str] | None = None
    latency_ms: int | None = None
    client_ref: str | None = None

    def wire(self) -> dict[str, Any]:
        """As JSON wants it, without what was not said."""
        return self.model_dump(mode="json", exclude_none=True)
