"""Groups: put by trainers, read by dashboards."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.labels import groups, leases
from services.labels.group_rows import core
from services.labels.schemas.fields import Count, Finite, Name
from services.labels.schemas.groups import GroupIn, GroupPage, GroupView
from services.labels.store.tables import Assignment, Group, Label
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.pagination import PageQuery
from services.web.problems import problems

router = APIRouter(prefix="/groups", tags=["groups"])

GroupId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,200}$", description="Chosen by sender")]
Include = Annotated[
    str | None,
    Query(
        pattern=r"^(labels|aggregate|leases)(,(labels|aggregate|leases))*$",
        description="labels,aggregate,leases",
    ),
]
OTHER_PEOPLES = {"annotator_id": "", "note": None, "client_ref": None}
"""What only admins see of labels in their groups: who they are of, and what was written."""
State = Literal["open", "ready", "consumed", "expired", "retired"]


@router.put(
    "/{group_id}",
    operation_id="put_group",
    status_code=201,
    response_model=GroupView,
    responses={200: {"model": GroupView, "description": "It was here"}, **problems(409, 422)},
)
async def put_group(
    group_id: GroupId,
    body: GroupIn,
    request: Request,
    _: Principal = require("service", "admin"),
) -> Response:
    """Offer a group for labelling; the same body again changes nothing."""
    state = request.app.state
    new, now = body.to_group(group_id), state.clock()

    def operation(session: Session) -> Response:
        group, is_new = groups.put(session, new, now, state.settings)
        view = GroupView.of(group, groups.images_of(session, [group_id])[group_id])
        location = request.url.path if is_new else None
        return answer(view, 201 if is_new else 200, group.revision, location)

    response = await state.database.write(operation)
    state.bell.ring()
    return response


def _filtered(
    run_id: Annotated[Name | None, Query()] = None,
    state: Annotated[State | None, Query()] = None,
    question_id: Annotated[Name | None, Query()] = None,
    prompt_id: Annotated[str | None, Query(max_length=200)] = None,
    policy_from: Annotated[Count | None, Query(description="Lowest policy version")] = None,
    policy_to: Annotated[Count | None, Query(description="Highest policy version")] = None,
    mu_from: Annotated[Finite | None, Query(description="Lowest mean of mu")] = None,
    mu_to: Annotated[Finite | None, Query(description="Highest mean of mu")] = None,
    has_labels: Annotated[bool | None, Query()] = None,
) -> Select[Any]:
    mean = Group.aggregate["mean"].as_float()
    # As functions: a comparison with None is an error even where nobody wants it.
    wanted = (
        (run_id, lambda: Group.run_id == run_id),
        (state, lambda: Group.state == state),
        (question_id, lambda: Group.question_id == question_id),
        (prompt_id, lambda: Group.prompt_id == prompt_id),
        (policy_from, lambda: Group.policy_version >= policy_from),
        (policy_to, lambda: Group.policy_version <= policy_to),
        (mu_from, lambda: mean >= mu_from),
        (mu_to, lambda: mean <= mu_to),
        (has_labels, lambda: (Group.num_labels > 0) == has_labels),
    )
    return select(Group).where(*(clause() for value, clause in wanted if value is not None))


@router.get("", operation_id="list_groups", response_model=GroupPage, responses=problems())
async def list_groups(
    request: Request,
    page: PageQuery,
    query: Annotated[Select[Any], Depends(_filtered)],
    include: Include = None,
    principal: Principal = require("viewer", "service", "admin"),
) -> Response:
    """Groups, newest first; filters are combined."""

    def read(session: Session) -> Any:
        rows, *rest = page.fetch(session, query, Group.created_at, Group.id)
        return _views(session, rows, include, principal), *rest

    views, next_cursor, total = await request.app.state.database.read(read)
    return answer_page(request, views, next_cursor, total)


@router.get(
    "/{group_id}", operation_id="get_group", response_model=GroupView, responses=problems(304)
)
async def get_group(
    group_id: GroupId,
    request: Request,
    include: Include = None,
    principal: Principal = require("viewer", "service", "admin"),
) -> Response:
    """One group, with its labels, aggregate or leases where asked for; admins see who said what."""

    def read(session: Session) -> tuple[GroupView, int]:
        group = groups.get(session, group_id)
        return _views(session, [group], include, principal)[0], group.revision

    view, revision = await request.app.state.database.read(read)
    return etags.conditional(request, answer(view, revision=revision))


def _views(
    session: Session, rows: list[Group], include: str | None, principal: Principal
) -> list[GroupView]:
    wanted = set((include or "").split(","))
    ids = [group.id for group in rows]
    images = groups.images_of(session, ids)
    labels: dict[str, list[Any]] = {id: [] for id in ids}
    if "labels" in wanted:
        table = core(Label)
        found = session.execute(select(table).where(table.c.group_id.in_(ids)).order_by("seq"))
        hidden = {} if principal.role == "admin" else OTHER_PEOPLES
        for row in found.mappings():
            labels[row["group_id"]].append({**row, **hidden})
    held: dict[str, list[Assignment]] = {id: [] for id in ids}
    for lease in leases.of_groups(session, ids) if "leases" in wanted else ():
        held[lease.group_id].append(lease)
    return [
        GroupView.of(
            group,
            images[group.id],
            labels[group.id] if "labels" in wanted else None,
            "aggregate" in wanted,
            held[group.id] if "leases" in wanted else None,
        )
        for group in rows
    ]
