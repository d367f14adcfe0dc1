"""Labels: read and amended by their authors, seen whole by admins."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from services.labels import amending
from services.labels.audit import record_audit
from services.labels.schemas.fields import Name, Value
from services.labels.schemas.labels import LabelChange, LabelPage, LabelView
from services.labels.store.tables import Label
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.pagination import PageQuery
from services.web.problems import Problem, problems

router = APIRouter(tags=["labels"])

LabelId = Annotated[str, Path(max_length=26)]


class Filters:
    """What a list of labels may be narrowed to."""

    def __init__(
        self,
        group_id: Annotated[Name | None, Query()] = None,
        image_id: Annotated[str | None, Query(max_length=26)] = None,
        run_id: Annotated[Name | None, Query()] = None,
        question_id: Annotated[Name | None, Query()] = None,
        annotator_id: Annotated[str | None, Query(max_length=26)] = None,
        value: Annotated[Value | None, Query()] = None,
        since_seq: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    ) -> None:
        self.since_seq = since_seq
        self.tell_groups = group_id is not None or run_id is not None
        self._wanted = {
            Label.group_id: group_id,
            Label.image_id: image_id,
            Label.run_id: run_id,
            Label.question_id: question_id,
            Label.annotator_id: annotator_id,
            Label.value: value,
        }

    def of(self, query: Select[Any]) -> Select[Any]:
        """The query, narrowed."""
        given = [column == value for column, value in self._wanted.items() if value is not None]
        return query.where(*given)


@router.get("/labels", operation_id="list_labels", response_model=LabelPage, responses=problems())
async def list_labels(
    request: Request,
    page: PageQuery,
    filters: Annotated[Filters, Depends()],
    principal: Principal = require("annotator", "service", "admin"),
) -> Response:
    """Your own labels; an admin's are all. With `since_seq` the oldest first from there on: read
    on from the last `seq`, and now and then a little before it, since numbers may commit late."""
    if principal.role == "annotator" and filters.tell_groups:
        detail = "group_id and run_id are not for those who label blind; ask by image_id"
        raise Problem(403, "labels-blind", "You label blind", detail)
    query = filters.of(select(Label).where(amending.seen_by(principal)))

    def read(session: Session) -> tuple[list[LabelView], str | None, int | None]:
        if filters.since_seq is None:
            rows, next_cursor, total = page.fetch(session, query, Label.received_at, Label.id)
        else:
            tail = query.where(Label.seq > filters.since_seq).order_by(Label.seq)
            rows, next_cursor, total = [*session.scalars(tail.limit(page.limit))], None, None
        return [LabelView.of(vars(row), principal.role) for row in rows], next_cursor, total

    return answer_page(request, *await request.app.state.database.read(read))


@router.get(
    "/labels/{label_id}",
    operation_id="get_label",
    response_model=LabelView,
    responses=problems(304),
)
async def get_label(
    label_id: LabelId,
    request: Request,
    principal: Principal = require("annotator", "service", "admin"),
) -> Response:
    """One label, as it stands."""
    row = await request.app.state.database.read(
        lambda session: amending.find(session, label_id, principal)
    )
    return etags.conditional(
        request, answer(LabelView.of(vars(row), principal.role), revision=row.revision)
    )


@router.patch(
    "/labels/{label_id}",
    operation_id="amend_label",
    response_model=LabelView,
    responses=problems(409, 412, 428),
)
async def amend_label(
    label_id: LabelId,
    body: LabelChange,
    request: Request,
    principal: Principal = require("annotator", "service", "admin"),
) -> Response:
    """Amend a label; what it said is kept as a revision. After the group is consumed only admins
    may."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if changes.get("value", "") is None:
        del changes["value"]
    return await _amend(request, label_id, changes | {"retracted_at": None}, principal)


@router.delete(
    "/labels/{label_id}",
    operation_id="retract_label",
    status_code=204,
    response_class=Response,
    responses=problems(409, 412, 428),
)
async def retract_label(
    label_id: LabelId,
    request: Request,
    principal: Principal = require("annotator", "service", "admin"),
) -> Response:
    """Take a label back: it counts no more and is kept."""
    await _amend(request, label_id, {"retracted_at": request.app.state.clock()}, principal)
    return answer(None, 204)


async def _amend(
    request: Request, label_id: str, changes: dict[str, Any], principal: Principal
) -> Response:
    state = request.app.state
    now = state.clock()

    def operation(session: Session) -> Response:
        opened = amending.open_label(session, label_id, principal)
        etags.require_match(request, opened.label["revision"])
        after = amending.amend(session, opened, changes, principal.actor, now, state.settings)
        if principal.role == "admin":
            before, said = (
                {"value": at["value"], "note": at["note"]} for at in (opened.label, after)
            )
            record_audit(session, principal, "label.amend", label_id, before, said, now)
        return answer(LabelView.of(after, principal.role), revision=after["revision"])

    return await state.database.write(operation)
