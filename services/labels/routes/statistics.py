"""How labelling does, for dashboards."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from services.labels.schemas.fields import Name
from services.labels.schemas.statistics import StatisticsView
from services.labels.statistics import statistics
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import problems

router = APIRouter(prefix="/statistics", tags=["statistics"])


@router.get("", operation_id="get_statistics", response_model=StatisticsView, responses=problems())
async def get_statistics(
    request: Request,
    run_id: Annotated[Name | None, Query(description="All runs if not given")] = None,
    principal: Principal = require("viewer", "service", "admin"),
) -> Response:
    """Labels a minute, the queue, like rates, agreement, gold, rewards on their way; admins are
    told who, too."""
    state = request.app.state
    now, with_names = state.clock(), principal.role == "admin"
    found = await state.database.read(lambda session: statistics(session, now, run_id, with_names))
    return answer(StatisticsView(found))
