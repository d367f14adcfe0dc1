"""Exports: asked for by admins, made in the background, fetched as files."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.audit import record_audit
from services.labels.exporter import exports_folder
from services.labels.schemas.exports import ExportPage, ExportView, NewExport
from services.labels.store.tables import Export
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, once
from services.web.ids import new_id
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

router = APIRouter(prefix="/exports", tags=["exports"])
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
FILE = {200: {"content": {"application/x-ndjson": {}, "text/csv": {}}, "description": "The file"}}


@router.post(
    "",
    operation_id="create_export",
    status_code=202,
    response_model=ExportView,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
async def create(
    body: NewExport, request: Request, principal: Principal = require("admin")
) -> Response:
    """Have labels written to a file; Location tells how far it is. People go by pseudonyms."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        filters = body.filters.model_dump(exclude_none=True)
        export = Export(
            id=new_id(now), state="pending", format=body.format, filters=filters, created_at=now
        )
        session.add(export)
        session.flush()
        told = {"format": export.format, "filters": filters}
        record_audit(session, principal.actor, "export.create", export.id, None, told, now)
        return answer(ExportView.of(export), 202, location=f"{request.url.path}/{export.id}")

    return await once(request, principal, operation)


@router.get("", operation_id="list_exports", response_model=ExportPage, responses=problems())
async def list_exports(
    request: Request, page: PageQuery, _: Principal = require("admin")
) -> Response:
    """Every export, newest first."""
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: page.fetch(session, select(Export), Export.created_at, Export.id)
    )
    return answer_page(request, [ExportView.of(row) for row in rows], next_cursor, total)


@router.get(
    "/{export_id}", operation_id="get_export", response_model=ExportView, responses=problems()
)
async def get(export_id: str, request: Request, _: Principal = require("admin")) -> Response:
    """How far an export is, and its manifest."""
    export = await request.app.state.database.read(lambda session: _find(session, export_id))
    return answer(ExportView.of(export))


@router.get(
    "/{export_id}/file",
    operation_id="get_export_file",
    response_class=FileResponse,
    responses={**problems(409, 410), **FILE},
)
async def file(export_id: str, request: Request, _: Principal = require("admin")) -> Response:
    """The file of an export that is done."""
    export = await request.app.state.database.read(lambda session: _find(session, export_id))
    if export.state != "done":
        detail = f"export {export_id} is {export.state}; ask GET {request.url.path[:-5]} again"
        raise Problem(409, "export-not-done", "No file yet", detail)
    # The folder's name is the row's own id, never what the caller sent.
    path = exports_folder(request.app) / export.id / f"labels.{export.format}"
    if not path.is_file():
        raise Problem(410, "export-gone", "The file is gone", "make the export again")
    name = f"labels-{export.id}.{export.format}"
    headers = {"Cache-Control": "no-store"}
    return FileResponse(path, 200, headers, MEDIA_TYPES[export.format], filename=name)


def _find(session: Session, export_id: str) -> Export:
    export = session.get(Export, export_id)
    if export is None:
        raise Problem(404, "not-found", "No such export", f"no export {export_id!r}")
    return export
