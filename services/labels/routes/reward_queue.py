"""The reward queue: trainers receive, ack, nack and extend; admins look and redrive."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from services.labels import metrics, reward_queue
from services.labels.audit import record_audit
from services.labels.queue_watch import receive as receive_messages
from services.labels.reward_queue import Receipted
from services.labels.schemas.reward_queue import (
    ExtendIn,
    NackIn,
    QueueView,
    ReceiptsIn,
    ReceiptsView,
    ReceiptView,
    ReceivedView,
    ReceiveIn,
    RedrivenView,
    RewardMessageView,
)
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import problems

router = APIRouter(tags=["reward queue"])


@router.post(
    "/reward-queue:receive",
    operation_id="receive_rewards",
    response_model=ReceivedView,
    responses=problems(),
)
async def receive(
    body: ReceiveIn, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """Take messages: nobody else gets them for `visibility_seconds`. At least once, in no order."""
    state = request.app.state
    received = await receive_messages(
        state.reward_watch,
        state.database,
        state.clock,
        body.max_groups,
        body.visibility_seconds,
        body.wait_seconds,
        body.run_id,
        request.is_disconnected,
    )
    metrics.reward_dead_letters.inc(received.num_buried)
    again = sum(message["receive_count"] > 1 for message in received.messages)
    metrics.reward_redeliveries.inc(again)
    for age_s in received.first_ages_s:
        metrics.group_ready_age.observe(age_s)
    messages = [RewardMessageView.model_validate(message) for message in received.messages]
    return answer(ReceivedView(messages=messages))


@router.post(
    "/reward-queue:ack",
    operation_id="ack_rewards",
    response_model=ReceiptsView,
    responses=problems(),
)
async def ack(
    body: ReceiptsIn, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """These are safe with the caller; their groups are consumed. Acking twice is fine."""
    now = request.app.state.clock()
    return await _settle(request, lambda s: reward_queue.ack(s, body.receipts, now))


@router.post(
    "/reward-queue:nack",
    operation_id="nack_rewards",
    response_model=ReceiptsView,
    responses=problems(),
)
async def nack(
    body: NackIn, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """Give these back: they can be received again at once."""
    now = request.app.state.clock()
    return await _settle(request, lambda s: reward_queue.nack(s, body.receipts, body.reason, now))


@router.post(
    "/reward-queue:extend",
    operation_id="extend_rewards",
    response_model=ReceiptsView,
    responses=problems(),
)
async def extend(
    body: ExtendIn, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """Keep these hidden for `visibility_seconds` from now on."""
    now = request.app.state.clock()
    return await _settle(
        request, lambda s: reward_queue.extend(s, body.receipts, body.visibility_seconds, now)
    )


@router.get(
    "/reward-queue",
    operation_id="get_reward_queue",
    response_model=QueueView,
    responses=problems(),
)
async def look(request: Request, _: Principal = require("admin")) -> Response:
    """How full the queue is, how old its oldest message, and what was given up."""
    now = request.app.state.clock()

    def query(session: Session) -> QueueView:
        dead = list(reward_queue.dead_letters(session))
        return QueueView.of(reward_queue.state(session, now), dead, now)

    return answer(await request.app.state.database.read(query))


@router.post(
    "/reward-queue/dead-letters:redrive",
    operation_id="redrive_dead_letters",
    response_model=RedrivenView,
    responses=problems(),
)
async def redrive(request: Request, principal: Principal = require("admin")) -> Response:
    """Put every dead letter back, as if it had never been received."""
    now = request.app.state.clock()

    def operation(session: Session) -> int:
        number = reward_queue.redrive(session, now)
        told = {"redriven": number}
        record_audit(
            session, principal.actor, "reward-queue.redrive", "reward-queue", None, told, now
        )
        return number

    return answer(RedrivenView(redriven=await request.app.state.database.write(operation)))


async def _settle(request: Request, operation: Callable[[Session], list[Receipted]]) -> Response:
    results = await request.app.state.database.write(operation)
    return answer(ReceiptsView(results=[ReceiptView.of(result) for result in results]))
