"""The audit log, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select

from services.labels.schemas.audit import AuditPage, AuditView
from services.labels.store.tables import AuditEntry
from services.web.answers import answer_page
from services.web.auth import Principal, require
from services.web.pagination import PageQuery
from services.web.problems import problems

router = APIRouter(prefix="/audit", tags=["audit"])

Filter = Annotated[str | None, Query(max_length=200)]


@router.get("", operation_id="list_audit", response_model=AuditPage, responses=problems())
async def list_audit(
    request: Request,
    page: PageQuery,
    actor: Filter = None,
    action: Filter = None,
    object: Filter = None,
    _: Principal = require("admin"),
) -> Response:
    """Who changed what, newest first; filters match whole values."""
    wanted = {AuditEntry.actor: actor, AuditEntry.action: action, AuditEntry.object: object}
    query = select(AuditEntry).where(*(column == v for column, v in wanted.items() if v))
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: page.fetch(session, query, AuditEntry.at, AuditEntry.seq)
    )
    return answer_page(request, [AuditView.of(row) for row in rows], next_cursor, total)
