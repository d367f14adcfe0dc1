"""A lease as its holder sees it: blind to scores, seeds, policies and other people."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.schemas.assignments import (
    AssignedGroup,
    AssignedImage,
    AssignmentView,
    PromptText,
    QuestionText,
)
from services.labels.store.tables import Assignment, Group, GroupImage, Label, Question


def assignment(session: Session, lease: Assignment, now: datetime) -> AssignmentView:
    """The lease with its group, in the order of its positions."""
    group, question = session.execute(
        select(Group, Question)
        .join(Question, Question.id == Group.question_id)
        .where(Group.id == lease.group_id)
    ).one()
    of_person = (Label.image_id == GroupImage.id, Label.annotator_id == lease.annotator_id)
    rows = session.execute(
        select(GroupImage.id, GroupImage.sha256, Label.value)
        .outerjoin(Label, (of_person[0]) & (of_person[1]) & Label.retracted_at.is_(None))
        .where(GroupImage.group_id == lease.group_id)
    )
    images = {row.id: row for row in rows}
    return AssignmentView(
        assignment_id=lease.id,
        lease_token=lease.token,
        lease_expires_at=lease.expires_at,
        lease_seconds=(lease.expires_at - now).total_seconds(),
        group=AssignedGroup(
            group_id=group.id,
            prompt=PromptText(text=group.prompt_text),
            question=QuestionText(question_id=question.id, text=question.text),
            content_warning=group.content_warning,
        ),
        images=[
            AssignedImage(
                image_id=id,
                url=f"/api/v1/images/{images[id].sha256}",
                position=position,
                value=images[id].value,
            )
            for position, id in enumerate(lease.positions)
        ],
        guidelines_version=question.guidelines_version,
        guidelines=question.guidelines,
    )
