"""The gallery: rolled-out groups, filtered, sorted, page by page."""

from dataclasses import dataclass
from sys import float_info
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from services.runs_api.group_index import Group, GroupQuery, Place, Sort
from services.runs_api.library import OpenRun
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.schemas.groups import GroupHistoryView, GroupPage, GroupView
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal
from services.web.pagination import MAX_LIMIT, invalid_cursor, pack, unpack
from services.web.problems import Problem, problems

router = APIRouter(prefix="/runs/{run_id}/groups", tags=["groups"])

MAX_ID = 2**53
Number = Annotated[int | None, Query(ge=0, le=MAX_ID)]
Bound = Annotated[float | None, Query(allow_inf_nan=False)]
State = Literal["ready", "pending", "failed", "expired"]


@dataclass(frozen=True)
class _Shown:
    limit: int
    after: Place | None


def _filters(
    sort: Annotated[Sort, Query(description="best and worst need `reward`")] = "newest",
    reward: Annotated[str | None, Query(max_length=200)] = None,
    min_reward: Bound = None,
    max_reward: Bound = None,
    from_step: Number = None,
    to_step: Number = None,
    min_version: Number = None,
    max_version: Number = None,
    prompt: Annotated[str | None, Query(max_length=400, description="Part of its text")] = None,
    prompt_id: Annotated[str | None, Query(max_length=400)] = None,
    state: Annotated[State | None, Query(description="Of a reward's verdict on an image")] = None,
    contrast: Annotated[
        bool | None, Query(description="Whether `reward` tells its images apart")
    ] = None,
) -> GroupQuery:
    needs_reward = sort in ("best", "worst") or any(
        value is not None for value in (min_reward, max_reward, contrast)
    )
    if needs_reward and reward is None:
        detail = "sort=best, sort=worst, min_reward, max_reward and contrast need reward=NAME"
        errors = [{"pointer": "query:reward", "detail": detail}]
        raise Problem(422, "invalid-request", "The request is not valid", detail, errors)
    return GroupQuery(
        sort,
        reward,
        min_reward,
        max_reward,
        from_step,
        to_step,
        min_version,
        max_version,
        prompt,
        prompt_id,
        state,
        contrast,
    )


def _shown(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` before")] = None,
) -> _Shown:
    return _Shown(limit, read_cursor(cursor) if cursor else None)


def read_cursor(text: str) -> Place:
    """The place that a cursor stands for; 400 for a text that never was one."""
    score, group_id = unpack(text, 2)
    is_score = score is None or (type(score) in (int, float) and abs(score) <= float_info.max)
    if not is_score or type(group_id) is not int or not 0 <= group_id <= MAX_ID:
        raise invalid_cursor()
    return None if score is None else float(score), group_id


@router.get("", operation_id="list_groups", response_model=GroupPage, responses=problems())
def list_groups(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    query: Annotated[GroupQuery, Depends(_filters)],
    shown: Annotated[_Shown, Depends(_shown)],
) -> Response:
    """Groups with their images and verdicts. By score, groups without one come last."""
    with run.images() as index:
        groups, place = index.page(query, shown.limit, shown.after)
    return answer_page(request, [view_of(run, group) for group in groups], place and pack(place))


@router.get(
    "/{group_id}",
    operation_id="get_group",
    response_model=GroupView,
    responses={304: {"description": "You have it"}, **problems()},
)
def get_group(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    group_id: Annotated[int, Path(ge=0, le=MAX_ID)],
) -> Response:
    """One group."""
    with run.images() as index:
        group = index.group(group_id)
    if group is None:
        raise _not_found(run, group_id)
    return etags.by_content(request, answer(view_of(run, group)))


@router.get(
    "/{group_id}/history",
    operation_id="get_group_history",
    response_model=GroupHistoryView,
    responses={304: {"description": "You have it"}, **problems()},
)
def get_history(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    group_id: Annotated[int, Path(ge=0, le=MAX_ID)],
) -> Response:
    """What has happened to one group, oldest first: generated, judged, asked about and labelled,
    drawn by either learner, gone. Empty in runs that recorded none of it."""
    with run.images() as index:
        events = index.history(group_id)
        is_known = bool(events) or index.group(group_id) is not None
    if not is_known:
        raise _not_found(run, group_id)
    return etags.by_content(request, answer(GroupHistoryView(items=events)))


def _not_found(run: OpenRun, group_id: int) -> Problem:
    detail = f"run {run.id} stored no images of group {group_id}"
    return Problem(404, "group-not-found", "No such group", detail)


def view_of(run: OpenRun, group: Group) -> GroupView:
    """A group, with the images whose files are gone marked as removed."""
    digests = {image.digest for image in group.images}
    removed = {digest for digest in digests if not run.store.path(digest).exists()}
    return GroupView.of(group, removed)
