"""Aggregates: what a group's labels say."""

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from services.labels import groups
from services.labels.routes.groups import GroupId
from services.labels.schemas.groups import AggregateView
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import problems

router = APIRouter(prefix="/aggregates", tags=["groups"])


@router.get(
    "/{group_id}",
    operation_id="get_aggregate",
    response_model=AggregateView,
    responses=problems(304),
)
async def get_aggregate(
    group_id: GroupId, request: Request, _: Principal = require("viewer", "service", "admin")
) -> Response:
    """The posterior like rate of every image, and how far the group is."""

    def read(session: Session) -> tuple[AggregateView, int]:
        group = groups.get(session, group_id)
        images = groups.images_of(session, [group_id])[group_id]
        return AggregateView.of(group, images), group.revision

    view, revision = await request.app.state.database.read(read)
    return etags.conditional(request, answer(view, revision=revision))
