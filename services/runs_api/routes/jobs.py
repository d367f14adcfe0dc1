"""Exports and samples of a checkpoint, by processes of the dashboard's machine."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from services.runs_api.jobs import ExportIn, SampleIn, history
from services.runs_api.library import OpenRun
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.schemas.jobs import JobList, JobView
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, own_key
from services.web.problems import Problem, problems

router = APIRouter(prefix="/runs/{run_id}", tags=["jobs"])
Name = Annotated[str, Path(pattern=r"^step_[0-9]{1,12}$", description="The checkpoint's name")]


@router.post(
    "/checkpoints/{name}/exports",
    operation_id="export_checkpoint",
    status_code=202,
    response_model=JobView,
    responses=problems(404, 409),
    dependencies=[IDEMPOTENT],
)
def export_checkpoint(
    *,
    principal: Principal = require("admin"),
    run: Run,
    name: Name,
    body: ExportIn,
    request: Request,
) -> Response:
    """Write the averaged generator into the run's exports/NAME as diffusers loads it. 202: it has
    begun; GET the Location. One job at a time; the same Idempotency-Key is the same job."""
    return _start(run, name, body, principal, request)


@router.post(
    "/checkpoints/{name}/samples",
    operation_id="sample_checkpoint",
    status_code=202,
    response_model=JobView,
    responses=problems(404, 409),
    dependencies=[IDEMPOTENT],
)
def sample_checkpoint(
    *,
    principal: Principal = require("admin"),
    run: Run,
    name: Name,
    body: SampleIn,
    request: Request,
) -> Response:
    """Draw images of a prompt with the averaged generator. As an export otherwise; the images are
    then the run's, by their digests."""
    return _start(run, name, body, principal, request)


def _start(
    run: OpenRun, name: str, body: ExportIn | SampleIn, principal: Principal, request: Request
) -> Response:
    key = own_key(request, principal)
    job = request.app.state.jobs.start(run.folder, name, body, principal.actor, key)
    location = f"{request.url.path.partition('/checkpoints/')[0]}/jobs/{job.id}"
    return answer(JobView.of(run.folder, job), 202, location=location)


@router.get("/jobs", operation_id="list_jobs", response_model=JobList, responses=problems())
def list_jobs(*, _: Principal = WATCHER, run: Run) -> Response:
    """Every job that the run's checkpoints were ever used by, the newest first."""
    items = [JobView.of(run.folder, job) for job in history(run.folder)]
    return answer(JobList(items=items))


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    response_model=JobView,
    responses={304: {"description": "You have it"}, **problems()},
)
def get_job(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    job_id: Annotated[str, Path(pattern=r"^[0-9]{20}-[0-9a-f]{8}$")],
) -> Response:
    """A job as it stands."""
    job = next((job for job in history(run.folder) if job.id == job_id), None)
    if job is None:
        detail = f"run {run.id} has no job {job_id}"
        raise Problem(404, "job-not-found", "No such job", detail)
    return etags.by_content(request, answer(JobView.of(run.folder, job)))
