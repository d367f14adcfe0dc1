"""Health: for load balancers, outside the API and its keys."""

from fastapi import APIRouter, Request, Response

from services.web.answers import answer
from services.web.problems import unavailable

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
