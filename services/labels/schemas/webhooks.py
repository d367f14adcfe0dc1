"""Webhooks on the wire."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.labels.store.tables import Delivery, Webhook

Topic = Literal["labels", "groups", "rewards", "annotators", "system"]


class NewWebhook(BaseModel):
    """Where to send which events."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"url": "https://hooks.example.com/t", "topics": ["groups"]}},
    )
    url: str = Field(min_length=1, max_length=2000, description="https, of a host in webhook_hosts")
    topics: list[Topic] = Field(min_length=1, max_length=5)


class WebhookChange(BaseModel):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"state": "active"}})
    url: str | None = Field(None, min_length=1, max_length=2000)
    topics: list[Topic] | None = Field(None, min_length=1, max_length=5)
    state: Literal["active", "disabled"] | None = None


class WebhookView(BaseModel):
    """A webhook, without its secret."""

    webhook_id: str
    url: str
    topics: list[Topic]
    state: Literal["active", "disabled"]
    num_failures: int = Field(description="Attempts that failed since the last success")
    created_at: datetime

    @classmethod
    def of(cls, row: Webhook) -> "WebhookView":
        """A row."""
        names = [name for name in WebhookView.model_fields if name != "webhook_id"]
        return WebhookView.model_validate(
            {"webhook_id": row.id, **{name: getattr(row, name) for name in names}}
        )


class CreatedWebhook(WebhookView):
    """A new webhook, with the secret that signs its deliveries; shown this once."""

    secret: str | None = Field(description="whsec_...; null when the answer is replayed")


class WebhookPage(BaseModel):
    """Webhooks, newest first."""

    items: list[WebhookView]
    next_cursor: str | None
    total: int | None = None


class DeliveryView(BaseModel):
    """An event on its way to a webhook; `delivery_id` is the header webhook-id."""

    delivery_id: str
    webhook_id: str
    event_seq: int
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    next_at: datetime = Field(description="When a pending one is tried")
    last_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None

    @classmethod
    def of(cls, row: Delivery) -> "DeliveryView":
        """A row."""
        names = [name for name in cls.model_fields if name != "delivery_id"]
        return cls.model_validate(
            {"delivery_id": row.id, **{name: getattr(row, name) for name in names}}
        )


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None
    total: int | None = None


class ReplayIn(BaseModel):
    """What to send again."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"delivery_ids": ["01JZ0000000000000000000000"]}},
    )
    delivery_ids: list[str] | None = Field(
        None, min_length=1, max_length=500, description="null: every delivery that failed"
    )


class ReplayedView(BaseModel):
    """How many deliveries are sent again."""

    replayed: int
