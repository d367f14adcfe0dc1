"""Assignments: claim a group, keep it, submit it, give it back."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels import assignment_views, leases
from services.labels.labelling import Verdict
from services.labels.metrics import label_latency, labels_received, labels_rejected
from services.labels.people import by_id
from services.labels.schemas.assignments import (
    AssignmentView,
    ClaimIn,
    HeartbeatView,
    RevokedView,
    SubmitIn,
    SubmittedView,
    Token,
)
from services.labels.schemas.labels import LabelIn, LabelView
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.limits import charge, limited
from services.web.problems import Problem, problems

router = APIRouter(prefix="/assignments", tags=["assignments"])

AssignmentId = Annotated[str, Path(max_length=26)]
RETRY_AFTER_S = 5
LOOK_AGAIN_S = 2.0
"""Waiting for work of another process, or for a lease to run out."""


@router.post(
    "",
    operation_id="claim_assignment",
    status_code=201,
    response_model=AssignmentView,
    responses={
        200: {"model": AssignmentView, "description": "Your live lease"},
        204: {"description": "Nothing to label now; see Retry-After"},
        **problems(422),
    },
    dependencies=[limited("claim", "annotator")],
)
async def claim(
    body: ClaimIn, request: Request, principal: Principal = require("annotator", "admin")
) -> Response:
    """Lease what a group lacks: all of it, or what others left. Your own live lease comes again;
    without work, 204 after the wait."""
    state = request.app.state
    annotator_id = _person(principal)
    until = asyncio.get_running_loop().time() + body.wait_seconds

    def operation(session: Session) -> tuple[AssignmentView, bool] | None:
        given = leases.claim(
            session, annotator_id, body.question_id, state.clock(), state.settings, body.holding
        )
        if given is None:
            return None
        return assignment_views.assignment(session, given[0], state.clock()), given[1]

    while True:
        heard = state.bell.heard
        given = await state.database.write(operation)
        if given is not None:
            view, is_new = given
            location = f"{request.url.path}/{view.assignment_id}"
            return answer(view, 201 if is_new else 200, location=location if is_new else None)
        left = until - asyncio.get_running_loop().time()
        if left <= 0 or await request.is_disconnected():
            return answer(None, 204, headers={"Retry-After": str(RETRY_AFTER_S)})
        await state.bell.wait(heard, min(left, LOOK_AGAIN_S))


@router.post(
    "/{assignment_id}/heartbeat",
    operation_id="heartbeat",
    response_model=HeartbeatView,
    responses=problems(409),
)
async def heartbeat(
    assignment_id: AssignmentId,
    body: Token,
    request: Request,
    principal: Principal = require("annotator", "admin"),
) -> Response:
    """Keep the lease."""
    state = request.app.state
    now = state.clock()

    def operation(session: Session) -> HeartbeatView:
        lease = leases.own(session, assignment_id, principal.annotator_id)
        leases.heartbeat(session, lease, body.lease_token, now, state.settings)
        return HeartbeatView(
            assignment_id=lease.id,
            lease_expires_at=lease.expires_at,
            lease_seconds=(lease.expires_at - now).total_seconds(),
        )

    return answer(await state.database.write(operation))


@router.post(
    "/{assignment_id}/labels",
    operation_id="submit_labels",
    status_code=201,
    response_model=SubmittedView,
    responses=problems(409, 422),
)
async def submit(
    assignment_id: AssignmentId,
    body: SubmitIn,
    request: Request,
    principal: Principal = require("annotator", "admin"),
) -> Response:
    """Store verdicts. A lost lease is no loss while its images are free; else 409 `lease-lost` has
    your `labels`, as you sent them."""
    state = request.app.state
    now, annotator_id = state.clock(), _person(principal)
    charge(request, "label", "annotator", num=len(body.labels))

    def operation(session: Session) -> SubmittedView:
        person = by_id(session, annotator_id)
        lease = leases.own(session, assignment_id, annotator_id)
        verdicts = [Verdict(person=person, **label.model_dump()) for label in body.labels]
        recorded = leases.submit(
            session, lease, body.lease_token, verdicts, body.final, now, state.settings
        )
        return SubmittedView(
            assignment_id=lease.id,
            state=lease.state,
            lease_expires_at=lease.expires_at,
            labels=[LabelView.of(result.label or {}, principal.role) for result in recorded],
        )

    try:
        view = await state.database.write(operation)
    except Problem as problem:
        labels_rejected.labels(problem.code).inc(len(body.labels))
        if problem.code == "lease-lost":
            problem.extensions = {
                "labels": [label.model_dump(mode="json") for label in body.labels]
            }
        raise
    _count(body.labels)
    return answer(view, 201)


@router.delete(
    "/{assignment_id}",
    operation_id="release_assignment",
    status_code=204,
    response_class=Response,
    responses=problems(409),
)
async def release(
    assignment_id: AssignmentId,
    request: Request,
    reason: Annotated[
        str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="A skip")
    ] = None,
    principal: Principal = require("annotator", "admin"),
) -> Response:
    """Give the group back; with a reason it is skipped, and never given to you again."""
    state = request.app.state
    now = state.clock()

    def operation(session: Session) -> None:
        lease = leases.own(session, assignment_id, principal.annotator_id)
        leases.release(session, lease, reason, now, state.settings)

    await state.database.write(operation)
    state.bell.ring()
    return answer(None, 204)


@router.post(
    "/{assignment_id}:revoke",
    operation_id="revoke_assignment",
    response_model=RevokedView,
    responses=problems(409),
)
async def revoke(
    assignment_id: AssignmentId, request: Request, principal: Principal = require("admin")
) -> Response:
    """Take a lease back from whoever holds it; again it changes nothing. The group goes to others,
    never again to them; what they send all the same is taken while nobody else has the images."""
    state = request.app.state
    now = state.clock()

    def operation(session: Session) -> RevokedView:
        lease = leases.revoke(session, assignment_id, now, principal)
        return RevokedView(assignment_id=lease.id, state=lease.state)

    view = await state.database.write(operation)
    state.bell.ring()
    return answer(view)


def _person(principal: Principal) -> str:
    if principal.annotator_id is None:
        detail = "this key labels as nobody; use a key or session of an annotator"
        raise Problem(403, "no-annotator", "Nobody to label as", detail)
    return principal.annotator_id


def _count(labels: list[LabelIn]) -> None:
    for label in labels:
        labels_received.labels(label.value, "web").inc()
        if label.latency_ms is not None:
            label_latency.observe(label.latency_ms / 1000)
