"""What people are asked, and the guidelines they read: made, changed and closed by admins."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from services.labels.store.tables import Question
from services.web.problems import Problem


def create(
    session: Session, id: str, text: str, guidelines: str, now: datetime
) -> tuple[Question, bool]:
    """The question and whether it is new; 409 where another one has that id."""
    found = session.get(Question, id)
    if found is not None:
        if (found.text, found.guidelines) == (text, guidelines):
            return found, False
        detail = f"question {id!r} says something else; PATCH it, or choose another question_id"
        raise Problem(409, "question-exists", "The question exists", detail)
    question = Question(id=id, text=text, guidelines=guidelines, created_at=now)
    session.add(question)
    session.flush()
    return question, True


def get(session: Session, id: str) -> Question:
    """404 where there is none."""
    question = session.get(Question, id)
    if question is None:
        raise Problem(404, "not-found", "Not found", f"there is no question {id!r}")
    return question


def change(session: Session, question: Question, changes: Mapping[str, Any]) -> Question:
    """Change `text`, `guidelines` or `state`; new guidelines get the next version."""
    if changes.get("guidelines", question.guidelines) != question.guidelines:
        question.guidelines_version += 1
    for name, value in changes.items():
        setattr(question, name, value)
    question.revision += 1
    session.flush()
    return question
