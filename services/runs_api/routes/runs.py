"""Runs: what they are doing, who works for them, what they have saved, what is wrong."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from services.run_store.promoted import NoCheckpointError, Promotion, promote, promoted
from services.runs_api.checkpoints import Checkpoint, checkpoints_of
from services.runs_api.routes.access import WATCHER, Run, Runs
from services.runs_api.schemas.runs import (
    AlertList,
    AlertView,
    CheckpointList,
    CheckpointView,
    EvaluationView,
    PromotionIn,
    RunList,
    RunView,
    SheetList,
    SheetView,
    WorkerList,
    WorkerView,
    moment,
)
from services.runs_api.workers import workers_of
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import Problem, problems

router = APIRouter(tags=["runs"])
RESPONSES = {304: {"description": "You have it"}, **problems()}


@router.get("/runs", operation_id="list_runs", response_model=RunList, responses=problems())
def list_runs(*, _: Principal = WATCHER, runs: Runs) -> Response:
    """Every run of the folder, finished or not, the newest first."""
    return answer(RunList(items=[RunView.of(run.folder, run.facts()) for run in runs.all()]))


@router.get("/runs/{run_id}", operation_id="get_run", response_model=RunView, responses=problems())
def get_run(*, _: Principal = WATCHER, run: Run) -> Response:
    """One run, with the age of the news; so it has no ETag."""
    return answer(RunView.of(run.folder, run.facts()))


@router.get(
    "/runs/{run_id}/workers",
    operation_id="list_workers",
    response_model=WorkerList,
    responses=RESPONSES,
)
def list_workers(*, _: Principal = WATCHER, run: Run, request: Request) -> Response:
    """Its workers as of its last status; of a silent run nobody knows."""
    facts = run.facts()
    written = facts.get("updated_at")
    items = [WorkerView.of(worker) for worker in workers_of(facts)]
    updated_at = None if written is None else moment(written)
    return etags.by_content(request, answer(WorkerList(updated_at=updated_at, items=items)))


@router.get(
    "/runs/{run_id}/checkpoints",
    operation_id="list_checkpoints",
    response_model=CheckpointList,
    responses=RESPONSES,
)
def list_checkpoints(*, _: Principal = WATCHER, run: Run, request: Request) -> Response:
    """Whole checkpoints, the newest first, with SHA-256 of each file."""
    with run.numbers() as table:
        found = checkpoints_of(run.folder.checkpoints, table)
    return etags.by_content(request, answer(_listed(found, promoted(run.folder))))


@router.put(
    "/runs/{run_id}/promoted",
    operation_id="promote_checkpoint",
    response_model=CheckpointList,
    responses=problems(404),
)
def promote_checkpoint(
    *, principal: Principal = require("admin"), run: Run, body: PromotionIn
) -> Response:
    """Mark the checkpoint that people stand by; the run never removes it. All, as they are then."""
    try:
        with run.commanding():
            promotion = promote(run.folder, body.checkpoint, principal.actor)
    except NoCheckpointError as error:
        raise Problem(404, "checkpoint-not-found", "No such checkpoint", str(error)) from None
    with run.numbers() as table:
        found = checkpoints_of(run.folder.checkpoints, table)
    return answer(_listed(found, promotion))


def _listed(found: Sequence[Checkpoint], promotion: Promotion | None) -> CheckpointList:
    return CheckpointList(items=[CheckpointView.of(each, promotion) for each in found])


@router.get(
    "/runs/{run_id}/evaluations",
    operation_id="list_evaluations",
    response_model=SheetList,
    responses=RESPONSES,
)
def list_evaluations(*, _: Principal = WATCHER, run: Run, request: Request) -> Response:
    """Picture sheets of the same held-out prompts and noise, the oldest first."""
    items = [SheetView.of(sheet) for sheet in run.sheets.all()]
    return etags.by_content(request, answer(SheetList(items=items)))


@router.get(
    "/runs/{run_id}/evaluations/{label}",
    operation_id="get_evaluation",
    response_model=EvaluationView,
    responses=RESPONSES,
)
def get_evaluation(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    label: Annotated[str, Path(max_length=200)],
) -> Response:
    """The stored images of one evaluation, with what the rewards said of them."""
    known = {evaluation.label: evaluation for evaluation in run.held_out.all()}
    if label not in known:
        detail = f"run {run.id} stored no images of an evaluation {label}"
        raise Problem(404, "evaluation-not-found", "No such evaluation", detail)
    return etags.by_content(request, answer(EvaluationView.of(known[label])))


@router.get(
    "/runs/{run_id}/alerts",
    operation_id="list_run_alerts",
    response_model=AlertList,
    responses=problems(),
)
def list_run_alerts(*, _: Principal = WATCHER, run: Run) -> Response:
    """What is or was wrong with a run."""
    return answer(AlertList(items=[AlertView.of(run.id, alert) for alert in run.alerts()]))


@router.get("/alerts", operation_id="list_alerts", response_model=AlertList, responses=problems())
def list_alerts(*, _: Principal = WATCHER, runs: Runs) -> Response:
    """What is wrong now, in any run; see a run's own alerts for those that are over."""
    items = [
        AlertView.of(run.id, alert)
        for run in runs.all()
        for alert in run.alerts()
        if alert.cleared_at is None
    ]
    return answer(AlertList(items=sorted(items, key=lambda item: item.raised_at, reverse=True)))
