"""People: made, invited, shut out, let in and forgotten by admins."""

from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.annotators import (
    create_annotator,
    erase_identity,
    find_annotator,
    set_state,
)
from services.labels.schemas.annotators import (
    AnnotatorPage,
    AnnotatorView,
    InviteView,
    NewAnnotator,
    NewInvite,
)
from services.labels.sessions import create_invite
from services.labels.store.tables import Annotator
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, once
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

router = APIRouter(prefix="/annotators", tags=["annotators"])


@router.post(
    "",
    operation_id="create_annotator",
    status_code=201,
    response_model=AnnotatorView,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
async def create(
    body: NewAnnotator, request: Request, principal: Principal = require("admin")
) -> Response:
    """Make a person; invite them, or give them a key."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        row = create_annotator(session, body.name, now, principal)
        location = f"{request.url.path}/{row.id}"
        return answer(AnnotatorView.of(row), 201, row.revision, location)

    return await once(request, principal, operation)


@router.get("", operation_id="list_annotators", response_model=AnnotatorPage, responses=problems())
async def list_annotators(
    request: Request, page: PageQuery, _: Principal = require("admin")
) -> Response:
    """Everybody, newest first."""
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: page.fetch(session, select(Annotator), Annotator.created_at, Annotator.id)
    )
    return answer_page(request, [AnnotatorView.of(row) for row in rows], next_cursor, total)


@router.get(
    "/{annotator_id}",
    operation_id="get_annotator",
    response_model=AnnotatorView,
    responses=problems(),
)
async def get(annotator_id: str, request: Request, _: Principal = require("admin")) -> Response:
    """One person."""
    row = await request.app.state.database.read(
        lambda session: find_annotator(session, annotator_id)
    )
    return etags.conditional(request, _view(row))


@router.post(
    "/{annotator_id}:exclude",
    operation_id="exclude_annotator",
    response_model=AnnotatorView,
    responses=problems(409, 412),
)
async def exclude(
    annotator_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """Shut somebody out: their votes count no more, from their first to their last. Reversible."""
    return await _set_state(request, annotator_id, "excluded", principal)


@router.post(
    "/{annotator_id}:include",
    operation_id="include_annotator",
    response_model=AnnotatorView,
    responses=problems(409, 412),
)
async def include(
    annotator_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """Let somebody in again; their votes count as before."""
    return await _set_state(request, annotator_id, "active", principal)


@router.post(
    "/{annotator_id}:erase-identity",
    operation_id="erase_annotator_identity",
    response_model=AnnotatorView,
    responses=problems(409, 412, 428),
)
async def erase(
    annotator_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """Forget who somebody was; their votes stay. There is no way back, hence If-Match."""
    now = request.app.state.clock()

    def change(session: Session, row: Annotator) -> None:
        etags.require_match(request, row.revision)
        erase_identity(session, row, now, principal)

    return await _change(request, annotator_id, change)


@router.post(
    "/{annotator_id}/invites",
    operation_id="invite_annotator",
    status_code=201,
    response_model=InviteView,
    responses=problems(409),
    tags=["sessions"],
    dependencies=[IDEMPOTENT],
)
async def invite(
    annotator_id: str,
    body: NewInvite,
    request: Request,
    principal: Principal = require("admin"),
) -> Response:
    """A link that starts a browser session, once. Its secret follows the #, which browsers keep
    to themselves."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        row = find_annotator(session, annotator_id)
        if row.state != "active":
            detail = f"annotator {annotator_id} is {row.state}; include them first"
            raise Problem(409, "annotator-excluded", "This account is closed", detail)
        made, secret = create_invite(session, annotator_id, body.role, now, principal)
        url = f"/login#invite={secret}"
        return answer(InviteView(url=url, expires_at=made.expires_at), 201)

    return await once(request, principal, operation, secret="url")


async def _set_state(
    request: Request, annotator_id: str, state: Literal["active", "excluded"], principal: Principal
) -> Response:
    now = request.app.state.clock()

    def change(session: Session, row: Annotator) -> None:
        etags.check_match(request, etags.etag(row.revision))
        set_state(session, row, state, now, principal)

    return await _change(request, annotator_id, change)


async def _change(
    request: Request, annotator_id: str, change: Callable[[Session, Annotator], None]
) -> Response:
    def operation(session: Session) -> Response:
        row = find_annotator(session, annotator_id)
        change(session, row)
        return _view(row)

    return await request.app.state.database.write(operation)


def _view(row: Annotator) -> Response:
    return answer(AnnotatorView.of(row), revision=row.revision)
