"""Questions: made and changed by admins, read by everybody with a key."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels import questions
from services.labels.audit import record_audit
from services.labels.schemas.questions import (
    QuestionChange,
    QuestionIn,
    QuestionPage,
    QuestionView,
)
from services.labels.store.tables import Question
from services.web import etags
from services.web.answers import answer, answer_page
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, once
from services.web.pagination import PageQuery
from services.web.problems import problems

router = APIRouter(prefix="/questions", tags=["questions"])

QuestionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,200}$")]


@router.post(
    "",
    operation_id="create_question",
    status_code=201,
    response_model=QuestionView,
    responses={200: {"model": QuestionView, "description": "It was here"}, **problems(409, 422)},
    dependencies=[IDEMPOTENT],
)
async def create_question(
    body: QuestionIn, request: Request, principal: Principal = require("admin")
) -> Response:
    """Ask something; groups name it by its id."""
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        question, is_new = questions.create(
            session, body.question_id, body.text, body.guidelines, now
        )
        view = QuestionView.of(question)
        if is_new:
            _audit(session, principal, "question.create", None, view, now)
        location = f"{request.url.path}/{question.id}"
        return answer(view, 201 if is_new else 200, question.revision, location)

    return await once(request, principal, operation)


@router.get("", operation_id="list_questions", response_model=QuestionPage, responses=problems())
async def list_questions(request: Request, page: PageQuery, _: Principal = require()) -> Response:
    """Questions of all states, newest first."""
    rows, next_cursor, total = await request.app.state.database.read(
        lambda session: page.fetch(session, select(Question), Question.created_at, Question.id)
    )
    return answer_page(request, [QuestionView.of(row) for row in rows], next_cursor, total)


@router.get(
    "/{question_id}",
    operation_id="get_question",
    response_model=QuestionView,
    responses=problems(304),
)
async def get_question(
    question_id: QuestionId, request: Request, _: Principal = require()
) -> Response:
    """One question with its guidelines."""
    row = await request.app.state.database.read(lambda session: questions.get(session, question_id))
    return etags.conditional(request, answer(QuestionView.of(row), revision=row.revision))


@router.patch(
    "/{question_id}",
    operation_id="change_question",
    response_model=QuestionView,
    responses=problems(412, 428),
)
async def change_question(
    question_id: QuestionId,
    body: QuestionChange,
    request: Request,
    principal: Principal = require("admin"),
) -> Response:
    """Change its text, its guidelines (a new version of them), or close and open it."""
    changes = body.model_dump(exclude_none=True)
    return await _change(request, question_id, changes, principal, "question.change")


@router.delete(
    "/{question_id}",
    operation_id="close_question",
    status_code=204,
    response_class=Response,
    responses=problems(412, 428),
)
async def close_question(
    question_id: QuestionId, request: Request, principal: Principal = require("admin")
) -> Response:
    """Ask it no more; its labels stay."""
    await _change(request, question_id, {"state": "closed"}, principal, "question.close")
    return answer(None, 204)


async def _change(
    request: Request,
    question_id: str,
    changes: dict[str, str],
    principal: Principal,
    action: str,
) -> Response:
    now = request.app.state.clock()

    def operation(session: Session) -> Response:
        question = questions.get(session, question_id)
        etags.require_match(request, question.revision)
        before = QuestionView.of(question)
        view = QuestionView.of(questions.change(session, question, changes))
        _audit(session, principal, action, before, view, now)
        return answer(view, revision=question.revision)

    return await request.app.state.database.write(operation)


def _audit(
    session: Session,
    principal: Principal,
    action: str,
    before: QuestionView | None,
    after: QuestionView,
    now: datetime,
) -> None:
    said = before.model_dump() if before else None
    name = f"question:{after.question_id}"
    record_audit(session, principal, action, name, said, after.model_dump(), now)
