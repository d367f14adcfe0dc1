"""Webhooks: made, changed, tested and looked into by admins."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels import outbox, webhooks
from services.labels.audit import record_audit
from services.labels.schemas.webhooks import (
    CreatedWebhook,
    DeliveryPage,
    DeliveryView,
    NewWebhook,
    ReplayedView,
    ReplayIn,
    WebhookChange,
    WebhookPage,
    WebhookView,
)
from services.labels.store.tables import Delivery, Webhook
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, once
from services.web.outbound import ForbiddenUrlError, OutboundRules
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

T = TypeVar("T")
router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post(
    "",
    operation_id="create_webhook",
    status_code=201,
    response_model=CreatedWebhook,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
async def create(
    body: NewWebhook, request: Request, principal: Principal = require("admin")
) -> Response:
    """Have events sent. The signing secret is in this answer and nowhere else."""
    now, rules = request.app.state.clock(), _rules(request)

    def operation(session: Session) -> Response:
        hook = _allowed(lambda: webhooks.create(session, body.url, body.topics, rules, now))
        view = WebhookView.of(hook)
        shown = view.model_dump(mode="json")
        record_audit(session, principal.actor, "webhook.create", hook.id, None, shown, now)
        location = f"{request.url.path}/{hook.id}"
        created = CreatedWebhook(**view.model_dump(), secret=hook.secret)
        return answer(created, 201, hook.revision, location)

    return await once(request, principal, operation, secret="secret")


@router.get("", operation_id="list_webhooks", response_model=WebhookPage, responses=problems())
async def list_webhooks(
    request: Request, page: PageQuery, _: Principal = require("admin")
) -> Response:
    """Every webhook, newest first."""
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: page.fetch(session, select(Webhook), Webhook.created_at, Webhook.id)
    )
    return answer_page(request, [WebhookView.of(row) for row in rows], next_cursor, total)


@router.get(
    "/{webhook_id}", operation_id="get_webhook", response_model=WebhookView, responses=problems()
)
async def get(webhook_id: str, request: Request, _: Principal = require("admin")) -> Response:
    """One webhook."""
    hook = await request.app.state.database.read(lambda session: _find(session, webhook_id))
    return etags.conditional(request, answer(WebhookView.of(hook), revision=hook.revision))


@router.patch(
    "/{webhook_id}",
    operation_id="change_webhook",
    response_model=WebhookView,
    responses=problems(412, 428),
)
async def change(
    webhook_id: str, body: WebhookChange, request: Request, principal: Principal = require("admin")
) -> Response:
    """Point it elsewhere, or set it going again after it was disabled."""
    now, rules = request.app.state.clock(), _rules(request)

    def operation(session: Session) -> Response:
        hook = _find(session, webhook_id)
        etags.require_match(request, hook.revision)
        before = WebhookView.of(hook).model_dump(mode="json")
        _allowed(lambda: webhooks.change(hook, body.url, body.topics, body.state, rules))
        after = WebhookView.of(hook)
        shown = after.model_dump(mode="json")
        record_audit(session, principal.actor, "webhook.change", hook.id, before, shown, now)
        return answer(after, revision=hook.revision)

    return await request.app.state.database.write(operation)


@router.delete(
    "/{webhook_id}",
    operation_id="delete_webhook",
    status_code=204,
    responses=problems(412, 428),
)
async def remove(
    webhook_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """End it, with what was still to be sent."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        hook = _find(session, webhook_id)
        etags.require_match(request, hook.revision)
        before = WebhookView.of(hook).model_dump(mode="json")
        webhooks.remove(session, hook)
        record_audit(session, principal.actor, "webhook.delete", webhook_id, before, None, now)
        return answer(None, 204)

    return await request.app.state.database.write(operation)


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="list_deliveries",
    response_model=DeliveryPage,
    responses=problems(),
)
async def deliveries(
    webhook_id: str, request: Request, page: PageQuery, _: Principal = require("admin")
) -> Response:
    """What was and will be sent, newest first, and how it went."""

    def query(session: Session) -> tuple[list[Delivery], str | None, int | None]:
        _find(session, webhook_id)
        wanted = select(Delivery).where(Delivery.webhook_id == webhook_id)
        return page.fetch(session, wanted, Delivery.created_at, Delivery.id)

    rows, next_cursor, total = await request.app.state.database.read(query)
    return answer_page(request, [DeliveryView.of(row) for row in rows], next_cursor, total)


@router.post(
    "/{webhook_id}:test",
    operation_id="test_webhook",
    status_code=202,
    response_model=DeliveryView,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
async def send_test(
    webhook_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """Send an event of type webhook.test to it; its log tells how that went."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        hook = _find(session, webhook_id)
        if hook.state != "active":
            detail = f"webhook {webhook_id} is {hook.state}; PATCH its state to active first"
            raise Problem(409, "webhook-disabled", "This webhook is disabled", detail)
        delivery = webhooks.send_test(session, hook, now)
        session.flush()
        return answer(DeliveryView.of(delivery), 202)

    return await once(request, principal, operation)


@router.post(
    "/{webhook_id}:replay",
    operation_id="replay_deliveries",
    status_code=202,
    response_model=ReplayedView,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
async def replay(
    webhook_id: str, body: ReplayIn, request: Request, principal: Principal = require("admin")
) -> Response:
    """Send deliveries again, under their old ids: those named, or all that failed."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        _find(session, webhook_id)
        number = outbox.replay(session, webhook_id, body.delivery_ids, now)
        return answer(ReplayedView(replayed=number), 202)

    return await once(request, principal, operation)


def _rules(request: Request) -> OutboundRules:
    settings = request.app.state.settings
    return OutboundRules(settings.webhook_hosts, settings.webhook_private)


def _find(session: Session, webhook_id: str) -> Webhook:
    hook = session.get(Webhook, webhook_id)
    if hook is None:
        raise Problem(404, "not-found", "No such webhook", f"no webhook {webhook_id!r}")
    return hook


def _allowed(act: Callable[[], T]) -> T:
    try:
        return act()
    except ForbiddenUrlError as error:
        errors = [{"pointer": "#/url", "detail": str(error)}]
        raise Problem(
            422, "url-not-allowed", "Not a place to send to", str(error), errors
        ) from error
