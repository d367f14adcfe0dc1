"""How people label, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from services.labels.diagnosis import diagnose
from services.labels.schemas.diagnosis import DiagnosisView
from services.labels.schemas.fields import Name
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import problems

router = APIRouter(prefix="/diagnosis", tags=["annotators"])


@router.get("", operation_id="get_diagnosis", response_model=DiagnosisView, responses=problems())
async def get_diagnosis(
    request: Request,
    run_id: Annotated[Name | None, Query()] = None,
    question_id: Annotated[Name | None, Query()] = None,
    _: Principal = require("admin"),
) -> Response:
    """Agreement over the newest labels, and whom to look at: those who are too fast to have looked,
    say always the same, answer at random or label far more than others."""
    found = await request.app.state.database.read(
        lambda session: diagnose(session, run_id, question_id)
    )
    return answer(DiagnosisView.of(found))
