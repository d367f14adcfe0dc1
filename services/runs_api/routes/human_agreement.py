"""People's labels beside what other judges make of the same images."""

from fastapi import APIRouter, Request, Response

from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.schemas.human_agreement import HumanAgreementView
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal
from services.web.problems import problems

router = APIRouter(prefix="/runs/{run_id}/human-agreement", tags=["groups"])


@router.get(
    "",
    operation_id="get_human_agreement",
    response_model=HumanAgreementView,
    responses={304: {"description": "You have it"}, **problems()},
)
def get_human_agreement(*, _: Principal = WATCHER, run: Run, request: Request) -> Response:
    """What people said of this run's groups: like rates by policy version, and whether the
    surrogate and the automatic rewards agree. What few labels cannot tell is null or left out."""
    with run.images() as index:
        found = index.labelled.agreement()
    return etags.by_content(request, answer(HumanAgreementView(found)))
