"""Labels pushed by other tools: without a lease, one or a thousand at a time."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels import people
from services.labels.labelling import Recorded, Verdict, record
from services.labels.metrics import label_commit, labels_received, labels_rejected
from services.labels.schemas.labels import (
    BatchItem,
    BatchView,
    LabelBatch,
    LabelView,
    PushedLabel,
)
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.limits import limited
from services.web.problems import Problem, problems

router = APIRouter(tags=["labels"])

PUSHERS = ("service", "admin", "labels:push")


@router.post(
    "/labels",
    operation_id="push_label",
    status_code=201,
    response_model=LabelView,
    responses={200: {"model": LabelView, "description": "It was here"}, **problems(409, 422)},
    dependencies=[limited("label", "annotator")],
)
async def push_label(
    body: PushedLabel, request: Request, principal: Principal = require(*PUSHERS)
) -> Response:
    """Store one verdict, without a lease. The same again is 200; another value is 409
    `label-exists`: PATCH the label."""
    (result,) = await _push(request, principal, [body], atomic=True)
    assert result.label is not None
    view = LabelView.of(result.label)
    location = f"{request.url.path}/{view.id}" if result.status == 201 else None
    return answer(view, result.status, view.revision, location)


@router.post(
    "/labels:batch",
    operation_id="push_labels",
    response_model=BatchView,
    responses=problems(409, 422),
)
async def push_labels(
    body: LabelBatch,
    request: Request,
    atomic: Annotated[bool, Query(description="All or nothing")] = False,
    principal: Principal = require(*PUSHERS),
) -> Response:
    """Store up to 1,000 verdicts, each with its own result; with `atomic` all of them, or the
    problem of the first that cannot be stored."""
    if principal.role == "annotator":
        request.app.state.limiter.take("label", principal.key_id, len(body.labels))
    results = await _push(request, principal, body.labels, atomic)
    return answer(BatchView(results=[_item(index, each) for index, each in enumerate(results)]))


async def _push(
    request: Request, principal: Principal, labels: Sequence[PushedLabel], atomic: bool
) -> list[Recorded]:
    state = request.app.state
    now = state.clock()

    def operation(session: Session) -> list[Recorded]:
        verdicts = _verdicts(session, principal, labels, now)
        recorded = record(session, verdicts, "api", now, state.settings)
        for index, each in enumerate(recorded if atomic else ()):
            if each.problem is not None:
                each.problem.errors = (
                    {"pointer": f"#/labels/{index}", "detail": each.problem.detail},
                )
                raise each.problem
        return recorded

    started = time.perf_counter()
    try:
        results = await state.database.write(operation)
    except Problem as problem:
        labels_rejected.labels(problem.code).inc(len(labels))
        raise
    label_commit.observe(time.perf_counter() - started)
    for label, result in zip(labels, results, strict=True):
        if result.problem is not None:
            labels_rejected.labels(result.problem.code).inc()
        elif result.status == 201:
            labels_received.labels(label.value, "api").inc()
    return results


def _verdicts(
    session: Session, principal: Principal, labels: Sequence[PushedLabel], now: datetime
) -> list[Verdict]:
    """Whose each label is: an app's user by name, or the caller."""
    refs = {label.annotator_ref for label in labels if label.annotator_ref is not None}
    if refs and not principal.may("labels:on_behalf"):
        detail = "annotator_ref needs a service key of scope labels:on_behalf"
        raise Problem(403, "forbidden", "Not allowed", detail)
    users = people.by_refs(session, principal.key_id, refs, now) if refs else {}
    people_of: dict[str | None, people.Person] = {**users}
    if any(label.annotator_ref is None for label in labels):
        people_of[None] = _self(session, principal)
    return [
        Verdict(
            person=people_of[label.annotator_ref], **label.model_dump(exclude={"annotator_ref"})
        )
        for label in labels
    ]


def _self(session: Session, principal: Principal) -> people.Person:
    if principal.annotator_id is None:
        detail = "this key labels as nobody; send annotator_ref, the user's name in your app"
        errors = [{"pointer": "#/annotator_ref", "detail": detail}]
        raise Problem(422, "annotator-missing", "Whose label is it?", detail, errors)
    return people.by_id(session, principal.annotator_id)


def _item(index: int, result: Recorded) -> BatchItem:
    problem = result.problem
    told = None
    if problem is not None:
        kind = f"/problems/{problem.code}"
        told = {"type": kind, "title": problem.title, "status": problem.status}
        told |= {"detail": problem.detail, "code": problem.code}
    id = result.label["id"] if result.label else None
    return BatchItem(index=index, status=result.status, id=id, problem=told)
