"""Health and metrics: for load balancers and Prometheus, outside the API and its keys."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from services.runs_api.metrics import REGISTRY
from services.runs_api.scrape import known_of_runs
from services.web.answers import answer
from services.web.problems import unavailable
from services.web.scraping import Scrape, check_scraper

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def health() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz")
def readiness(request: Request) -> Response:
    """And so does the folder of the runs; 503 where not."""
    runs = request.app.state.settings.runs
    if not runs.is_dir():
        raise unavailable(f"{runs} is no folder; the runs are written there")
    return answer({"status": "ready"})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus' text format, to this machine or to the bearer of the scrape token."""
    check_scraper(request)
    known = known_of_runs(request.app.state.library)
    return Response(Scrape(REGISTRY, known).text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
