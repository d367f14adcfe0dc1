"""The audit log, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from services.labels.audit import AuditFilter, read_audit
from services.labels.schemas.audit import AuditPage
from services.labels.schemas.fields import Name, Time
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
    since: Annotated[Time | None, Query(description="None that is older")] = None,
    run_id: Annotated[
        Name | None, Query(description="Whose groups, images, labels, leases")
    ] = None,
    _: Principal = require("admin"),
) -> Response:
    """Who changed what, newest first; filters match whole values."""
    wanted = AuditFilter(actor, action, object, since, run_id)
    found = await request.app.state.database.read(lambda session: read_audit(session, page, wanted))
    return answer_page(request, *found)
