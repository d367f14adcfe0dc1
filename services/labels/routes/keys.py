"""API keys: made, listed and revoked by admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels.api_keys import create_key, find_key, read_keys, revoke_key
from services.labels.schemas.keys import CreatedKey, KeyPage, KeyView, NewKey
from services.labels.store.tables import ApiKey
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, once
from services.web.keys import Role
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

router = APIRouter(prefix="/api-keys", tags=["keys"])


@router.post(
    "",
    operation_id="create_api_key",
    status_code=201,
    response_model=CreatedKey,
    responses=problems(409, 422),
    dependencies=[IDEMPOTENT],
)
async def create(
    body: NewKey, request: Request, principal: Principal = require("admin")
) -> Response:
    """Make a key. Its text is in this answer and nowhere else."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        try:
            row, text = create_key(
                session,
                body.name,
                body.role,
                now,
                principal,
                body.scopes,
                body.annotator_id,
                body.expires_in_days,
            )
        except ValueError as error:
            raise Problem(422, "grant-invalid", "Such a key cannot be", str(error)) from error
        view = CreatedKey(**KeyView.of(row).model_dump(), key=text)
        return answer(view, 201, row.revision, f"{request.url.path}/{row.id}")

    return await once(request, principal, operation, secret="key")


@router.get("", operation_id="list_api_keys", response_model=KeyPage, responses=problems())
async def list_keys(
    request: Request,
    page: PageQuery,
    role: Annotated[Role | None, Query(description="Of this role alone")] = None,
    _: Principal = require("admin"),
) -> Response:
    """Keys of all states, newest first; never their secrets."""
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: read_keys(session, page, role)
    )
    return answer_page(request, [KeyView.of(row) for row in rows], next_cursor, total)


@router.get(
    "/{key_id}", operation_id="get_api_key", response_model=KeyView, responses=problems(404)
)
async def get(key_id: str, request: Request, _: Principal = require("admin")) -> Response:
    """One key."""
    row = await request.app.state.database.read(lambda session: _find(session, key_id))
    return etags.conditional(request, answer(KeyView.of(row), revision=row.revision))


@router.delete(
    "/{key_id}", operation_id="revoke_api_key", status_code=204, responses=problems(404, 412, 428)
)
async def revoke(
    key_id: str, request: Request, principal: Principal = require("admin")
) -> Response:
    """End a key at once; its row stays for the audit."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        row = _find(session, key_id)
        etags.require_match(request, row.revision)
        revoke_key(session, row, now, principal)
        return answer(None, 204)

    return await request.app.state.database.write(operation)


def _find(session: Session, key_id: str) -> ApiKey:
    row = find_key(session, key_id)
    if row is None:
        raise Problem(404, "not-found", "No such key", f"no API key {key_id!r}")
    return row
