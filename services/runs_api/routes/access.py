"""What routes share: who may look, and the run that an address names."""

from typing import Annotated, Any

from fastapi import Depends, Path, Request

from services.runs_api.library import Library, OpenRun
from services.web.auth import require
from services.web.problems import Problem

WATCHER: Any = require("viewer", "service", "admin")
"""`_: Principal = WATCHER`: not annotators, who must not see what judges said before they do."""


def _library(request: Request) -> Library:
    return request.app.state.library


def _run(
    request: Request,
    run_id: Annotated[str, Path(max_length=128, description="As GET /runs gives it")],
) -> OpenRun:
    run = _library(request).find(run_id)
    if run is None:
        raise Problem(404, "run-not-found", "No such run", "GET /api/v1/runs has their ids")
    run.check()
    return run


Runs = Annotated[Library, Depends(_library)]
"""A route's parameter: every run."""
Run = Annotated[OpenRun, Depends(_run)]
"""A route's parameter: the run of the address; 404 where there is none."""
