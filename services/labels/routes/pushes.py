"""Labels pushed by other tools: without a lease, one or a thousand at a time."""

import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels.labelling import Recorded
from services.labels.metrics import label_commit, labels_received, labels_rejected
from services.labels.pushing import Push, Source, push
from services.labels.schemas.labels import (
    BatchItem,
    BatchView,
    LabelBatch,
    LabelView,
    PushedLabel,
)
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.limits import charge, limited
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
    started = time.perf_counter()
    result = await request.app.state.together.push(Push(principal, body))
    label_commit.observe(time.perf_counter() - started)
    _count([body], [result], "api")
    if result.problem is not None:
        raise result.problem
    assert result.label is not None
    view = LabelView.of(result.label, principal.role)
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
    source: Annotated[Source, Query(description="What each label keeps as its source")] = "api",
    principal: Principal = require(*PUSHERS),
) -> Response:
    """Store up to 1,000 verdicts, each with its own result; with `atomic` all of them, or the
    problem of the first that cannot be stored."""
    state = request.app.state
    now = state.clock()
    charge(request, "label", "annotator", num=len(body.labels))
    pushes = [Push(principal, label) for label in body.labels]

    def operation(session: Session) -> list[Recorded]:
        results = push(session, pushes, now, state.settings, source)
        if atomic:
            _refuse_partly(results)
        return results

    started = time.perf_counter()
    try:
        results = await state.database.write(operation)
    except Problem as problem:
        labels_rejected.labels(problem.code).inc(len(body.labels))
        raise
    label_commit.observe(time.perf_counter() - started)
    _count(body.labels, results, source)
    return answer(BatchView(results=[_item(index, each) for index, each in enumerate(results)]))


def _refuse_partly(results: Sequence[Recorded]) -> None:
    for index, result in enumerate(results):
        if result.problem is not None:
            errors = {"pointer": f"#/labels/{index}", "detail": result.problem.detail}
            result.problem.errors = (errors,)
            raise result.problem


def _count(labels: Sequence[PushedLabel], results: Sequence[Recorded], source: Source) -> None:
    for label, result in zip(labels, results, strict=True):
        if result.problem is not None:
            labels_rejected.labels(result.problem.code).inc()
        elif result.status == 201:
            labels_received.labels(label.value, source).inc()


def _item(index: int, result: Recorded) -> BatchItem:
    problem = result.problem
    told = None
    if problem is not None:
        told = {"type": f"/problems/{problem.code}", "title": problem.title}
        told |= {"status": problem.status, "detail": problem.detail, "code": problem.code}
    id = result.label["id"] if result.label else None
    return BatchItem(index=index, status=result.status, id=id, problem=told)
