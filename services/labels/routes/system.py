"""Health and metrics: for load balancers and Prometheus, outside the API and its keys."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import text

from services.labels.metrics import REGISTRY
from services.labels.scrape import known_to_the_store
from services.web.answers import answer
from services.web.scraping import Scrape, check_scraper

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def health() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def readiness(request: Request) -> Response:
    """And so does its database; 503 where not."""
    await request.app.state.database.look(lambda session: session.execute(text("select 1")).all())
    return answer({"status": "ready"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format, to this machine or to the bearer of the scrape token."""
    check_scraper(request)
    now = request.app.state.clock()
    known = await request.app.state.database.read(lambda session: known_to_the_store(session, now))
    return Response(Scrape(REGISTRY, known).text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
