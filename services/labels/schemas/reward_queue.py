"""The reward queue on the wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from services.labels.reward_queue import QueueState, Receipted
from services.labels.store.tables import RewardMessage

MAX_VISIBILITY_S = 12 * 3600
_RECEIPTS: JsonValue = ["0Xw3hYb0aQy4m7c2pT1vZr8sLk9nJd5f"]


class ReceiveIn(BaseModel):
    """What a consumer wants, and for how long nobody else shall have it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"run_id": "run-7", "wait_seconds": 20}}
    )
    max_groups: int = Field(16, ge=1, le=64)
    visibility_seconds: float = Field(60, ge=1, le=MAX_VISIBILITY_S, strict=True)
    wait_seconds: float = Field(
        0, ge=0, le=20, strict=True, description="How long to wait for a message"
    )
    run_id: str | None = Field(None, max_length=200, description="Only this run's messages")


class RewardImageView(BaseModel):
    """An image's posterior; `mu` is null where the group expired without enough labels."""

    image_id: str
    index: int
    mu: float | None = Field(description="Posterior mean of the like rate: the reward")
    likes: float | None = Field(
        None, description="Weight of the likes among its votes; null in messages of older services"
    )
    n: float = Field(description="Weight of its votes")
    rho: float = Field(description="n / (n + k): how much of mu is votes")


class RewardMessageView(BaseModel):
    """A group's rewards, under a receipt that acks them."""

    receipt: str
    group_id: str
    run_id: str
    reward_revision: int = Field(description="With group_id it tells a repeat")
    receive_count: int
    policy_version: int
    coverage: float
    label_seq: int | None = Field(
        None,
        description="`seq` of the group's newest label; null without any, and in messages of older "
        "services",
    )
    state: Literal["ready", "expired"]
    images: list[RewardImageView]


class ReceivedView(BaseModel):
    """Messages, none where nothing came in time."""

    messages: list[RewardMessageView]


class ReceiptsIn(BaseModel):
    """Messages, by their receipts."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"receipts": _RECEIPTS}}
    )
    receipts: list[str] = Field(min_length=1, max_length=64)


class NackIn(ReceiptsIn):
    """Messages to give back."""

    reason: str | None = Field(None, max_length=500, description="Kept for the dead letter")


class ExtendIn(ReceiptsIn):
    """Messages to keep."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"receipts": _RECEIPTS, "visibility_seconds": 300}},
    )
    visibility_seconds: float = Field(
        ge=1, le=MAX_VISIBILITY_S, strict=True, description="From now on"
    )


class ReceiptView(BaseModel):
    """What became of one receipt: 200, or 409 with its problem."""

    receipt: str
    status: Literal[200, 409]
    problem: dict[str, Any] | None = None

    @classmethod
    def of(cls, result: Receipted) -> "ReceiptView":
        """A result of the queue."""
        problem = None
        if result.status != 200:
            problem = {"code": "receipt-stale", "status": 409, "detail": result.detail}
        return cls.model_validate(
            {"receipt": result.receipt, "status": result.status, "problem": problem}
        )


class ReceiptsView(BaseModel):
    """A result a receipt, in order."""

    results: list[ReceiptView]


class DeadLetterView(BaseModel):
    """A message that nobody acked."""

    group_id: str
    run_id: str
    reward_revision: int
    receive_count: int
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, row: RewardMessage) -> "DeadLetterView":
        """A row."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class QueueView(BaseModel):
    """How full the queue is."""

    depth: int = Field(description="Messages that could be received now")
    in_flight: int = Field(description="Received, neither acked nor visible again")
    dead: int = Field(description="Dead letters")
    oldest_age_seconds: float | None = Field(description="Of messages neither acked nor dead")
    dead_letters: list[DeadLetterView] = Field(description="The oldest 100")

    @classmethod
    def of(cls, state: QueueState, dead: list[RewardMessage], now: datetime) -> "QueueView":
        """The queue's state as of `now`."""
        oldest = state.oldest_created_at
        return cls(
            depth=state.depth,
            in_flight=state.in_flight,
            dead=state.dead,
            oldest_age_seconds=(now - oldest).total_seconds() if oldest else None,
            dead_letters=[DeadLetterView.of(row) for row in dead],
        )


class RedrivenView(BaseModel):
    """How many dead letters went back."""

    redriven: int
