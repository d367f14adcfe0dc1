"""Health and metrics: for load balancers and Prometheus, outside the API and its keys."""

import hmac

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import text

from services.labels.scrape import Scrape, known_to_the_store
from services.web.answers import answer
from services.web.hosts import LOOPBACK
from services.web.problems import Problem

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def health() -> Response:
    """The process answers."""
    return answer({"status": "ok"})


@router.get("/readyz")
async def readiness(request: Request) -> Response:
    """And so does its database; 503 where not."""
    await request.app.state.database.read(lambda session: session.execute(text("select 1")).all())
    return answer({"status": "ready"})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format, to this machine or to the bearer of the scrape token."""
    _check_scraper(request)
    now = request.app.state.clock()
    known = await request.app.state.database.read(lambda session: known_to_the_store(session, now))
    return Response(Scrape(known).text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def _check_scraper(request: Request) -> None:
    token = request.app.state.settings.scrape_token
    given = request.headers.get("authorization", "")
    if token is not None and hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return
    # What a proxy on this machine passes on comes from elsewhere.
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for"))
    if forwarded or request.client is None or request.client.host not in LOOPBACK:
        detail = "ask from this machine, or send the scrape token: Authorization: Bearer ..."
        raise Problem(401, "unauthenticated", "Metrics are closed", detail)
