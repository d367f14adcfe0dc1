"""Webhooks: where events are sent, and how a receiver knows that they are ours.

Deliveries are signed as Standard Webhooks has it: `webhook-signature: v1,<base64>` is the HMAC-
SHA256, under the webhook's secret, of `id.timestamp.body`; the id is the same at every attempt.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete
from sqlalchemy.orm import Session

from services.labels.events import record_event
from services.labels.outbox import add_delivery
from services.labels.store.tables import Delivery, Webhook
from services.web.ids import new_id
from services.web.outbound import OutboundRules, check_url

SECRET_PREFIX = "whsec_"


def new_secret() -> str:
    """A fresh signing secret: 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """The signature of a delivery; `timestamp` in Unix seconds."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(secret: str, identity: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a delivery."""
    return {
        "Content-Type": "application/json",
        "User-Agent": "tdm-r1-webhooks/1",
        "webhook-id": identity,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, identity, timestamp, body),
    }


def create(
    session: Session, url: str, topics: Sequence[str], rules: OutboundRules, now: datetime
) -> Webhook:
    """A new webhook with a fresh secret; ForbiddenUrlError where we do not send to its URL."""
    check_url(url, rules)
    hook = Webhook(
        id=new_id(now),
        url=url,
        topics=sorted(set(topics)),
        secret=new_secret(),
        created_at=now,
        state="active",
        num_failures=0,
        revision=1,
    )
    session.add(hook)
    session.flush()
    return hook


def change(
    hook: Webhook,
    url: str | None,
    topics: Sequence[str] | None,
    state: str | None,
    rules: OutboundRules,
) -> None:
    """Change what is given. Set going again, it starts without a record of failures."""
    if url is not None:
        check_url(url, rules)
        hook.url = url
    if topics is not None:
        hook.topics = sorted(set(topics))
    if state is not None:
        hook.state = state
        hook.num_failures = 0
    hook.revision += 1


def send_test(session: Session, hook: Webhook, now: datetime) -> Delivery:
    """An event of type `webhook.test` on its way to this webhook alone."""
    data = {"webhook_id": hook.id}
    seq = record_event(session, "system", "webhook.test", data, now, "admin", deliver=False)
    return add_delivery(session, hook.id, seq, now)


def remove(session: Session, hook: Webhook) -> None:
    """Delete a webhook with its deliveries."""
    session.execute(delete(Delivery).where(Delivery.webhook_id == hook.id))
    session.delete(hook)
