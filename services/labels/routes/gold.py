"""Gold groups: admins say what is right, and never act on one miss."""

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels import gold, groups
from services.labels.audit import record_audit
from services.labels.routes.groups import GroupId
from services.labels.schemas.gold import GoldIn, GoldPage, GoldView
from services.labels.store.tables import Group
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

router = APIRouter(prefix="/gold", tags=["gold"])


@router.put(
    "/{group_id}",
    operation_id="put_gold",
    status_code=201,
    response_model=GoldView,
    responses={200: {"model": GoldView, "description": "It was gold"}, **problems(409, 412, 422)},
)
async def put_gold(
    group_id: GroupId, body: GoldIn, request: Request, principal: Principal = require("admin")
) -> Response:
    """Make a group that nobody has labelled a test, or change its answers: everybody's record of
    it is counted again."""
    state = request.app.state
    now = state.clock()
    answers = [gold.GoldAnswer(**given.model_dump()) for given in body.answers]

    def operation(session: Session) -> Response:
        etags.check_match(request, etags.etag(groups.get(session, group_id).revision))
        group, is_new = gold.mark(session, group_id, answers, now, state.settings)
        view = _view(session, group)
        record_audit(session, principal, "gold.put", group_id, None, view.model_dump(), now)
        location = request.url.path if is_new else None
        return answer(view, 201 if is_new else 200, group.revision, location)

    response = await state.database.write(operation)
    state.bell.ring()
    return response


@router.get("", operation_id="list_gold", response_model=GoldPage, responses=problems())
async def list_gold(request: Request, page: PageQuery, _: Principal = require("admin")) -> Response:
    """Gold groups, newest first."""

    def read(session: Session) -> tuple[list[GoldView], str | None, int | None]:
        query = select(Group).where(Group.is_gold)
        rows, next_cursor, total = page.fetch(session, query, Group.created_at, Group.id)
        images = groups.images_of(session, [group.id for group in rows])
        return [GoldView.of(group, images[group.id]) for group in rows], next_cursor, total

    return answer_page(request, *await request.app.state.database.read(read))


@router.get(
    "/{group_id}", operation_id="get_gold", response_model=GoldView, responses=problems(304)
)
async def get_gold(
    group_id: GroupId, request: Request, _: Principal = require("admin")
) -> Response:
    """One gold group with its answers."""
    view = await request.app.state.database.read(
        lambda session: _view(session, _find(session, group_id))
    )
    return etags.conditional(request, answer(view, revision=view.revision))


@router.delete(
    "/{group_id}",
    operation_id="retire_gold",
    status_code=204,
    response_class=Response,
    responses=problems(412, 428),
)
async def retire_gold(
    group_id: GroupId, request: Request, principal: Principal = require("admin")
) -> Response:
    """Ask it no more; what it has told of people stays."""
    now = request.app.state.clock()

    def operation(session: Session) -> None:
        group = _find(session, group_id)
        etags.require_match(request, group.revision)
        gold.retire(session, group)
        record_audit(session, principal, "gold.retire", group_id, None, None, now)

    await request.app.state.database.write(operation)
    return answer(None, 204)


def _find(session: Session, group_id: str) -> Group:
    group = groups.get(session, group_id)
    if not group.is_gold:
        detail = f"group {group_id!r} is not gold; PUT /gold/{group_id} makes it so"
        raise Problem(404, "not-found", "Not found", detail)
    return group


def _view(session: Session, group: Group) -> GoldView:
    return GoldView.of(group, groups.images_of(session, [group.id])[group.id])
