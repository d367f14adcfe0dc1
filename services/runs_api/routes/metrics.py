"""A run's numbers: whole, cut by step, thinned on this side of the wire."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from services.runs_api.downsampling import MIN_POINTS
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.schemas.metrics import HistogramView, MetricsView, SeriesView
from services.runs_api.schemas.runs import moment
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal
from services.web.problems import Problem, problems

router = APIRouter(prefix="/runs/{run_id}", tags=["metrics"])
MAX_NAMES = 64
RESPONSES = {304: {"description": "You have it"}, **problems()}

Step = Annotated[int | None, Query(ge=0, le=2**53)]


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_model=MetricsView,
    responses=RESPONSES,
)
def get_metrics(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    names: Annotated[
        str, Query(max_length=8000, description="Comma-separated; none tells the names alone")
    ] = "",
    from_step: Annotated[int | None, Query(alias="from", ge=0, le=2**53)] = None,
    to_step: Annotated[int | None, Query(alias="to", ge=0, le=2**53)] = None,
    max_points: Annotated[int, Query(ge=MIN_POINTS, le=20000, description="Of each number")] = 2000,
) -> Response:
    """Numbers by iteration. A thinned curve keeps the lowest and the highest of each stretch, and
    its gaps."""
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    with run.numbers() as table:
        _check(wanted, table.names)
        series = [table.series(name, from_step, to_step, max_points) for name in wanted]
        view = MetricsView(
            run_id=run.id,
            names=table.names,
            last_step=table.steps[-1] if len(table) else None,
            last_time=moment(table.times[-1]) if len(table) else None,
            num_skipped=table.num_skipped,
            series=[SeriesView.of(each) for each in series],
        )
    return etags.by_content(request, answer(view))


@router.get(
    "/histogram",
    operation_id="get_histogram",
    response_model=HistogramView,
    responses=RESPONSES,
)
def get_histogram(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    reward: Annotated[str, Query(max_length=200)],
    from_step: Step = None,
    to_step: Step = None,
    bins: Annotated[int, Query(ge=1, le=200)] = 20,
) -> Response:
    """The values of a reward over the stored images of some iterations; missing ones are not
    counted."""
    with run.images() as index:
        edges, counts = index.histogram(reward, from_step, to_step, bins)
    view = HistogramView(run_id=run.id, reward=reward, edges=edges, counts=counts)
    return etags.by_content(request, answer(view))


def _check(wanted: list[str], known: list[str]) -> None:
    unknown = [name for name in wanted if name not in set(known)]
    if unknown or len(wanted) > MAX_NAMES:
        detail = (
            f"no number is called {unknown[0]!r}; ask without names to see those that are"
            if unknown
            else f"{len(wanted)} names; ask for {MAX_NAMES} at most"
        )
        errors = [{"pointer": "query:names", "detail": detail}]
        raise Problem(422, "invalid-request", "The request is not valid", detail, errors)
