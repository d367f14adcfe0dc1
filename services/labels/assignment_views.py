"""A lease as its holder sees it: blind to scores, seeds, policies, names and other people."""

from datetime import datetime

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from services.labels.schemas.assignments import (
    AssignedGroup,
    AssignedImage,
    AssignmentView,
    PromptText,
    QuestionText,
)
from services.labels.store.tables import Assignment, Group, GroupImage, Label, Question, core

_groups, _images, _labels, _questions = (
    core(mapped) for mapped in (Group, GroupImage, Label, Question)
)
_GROUP = (
    select(
        _groups.c.prompt_text,
        _groups.c.question_id,
        _groups.c.content_warning,
        _questions.c.text,
        _questions.c.guidelines,
        _questions.c.guidelines_version,
    )
    .join(_questions, _questions.c.id == _groups.c.question_id)
    .where(_groups.c.id == bindparam("group"))
)
_OF_PERSON = and_(
    _labels.c.image_id == _images.c.id,
    _labels.c.annotator_id == bindparam("me"),
    _labels.c.retracted_at.is_(None),
)
_IMAGES = (
    select(_images.c.id, _images.c.sha256, _labels.c.value)
    .outerjoin(_labels, _OF_PERSON)
    .where(_images.c.group_id == bindparam("group"))
)


def assignment(session: Session, lease: Assignment, now: datetime) -> AssignmentView:
    """The lease with its group, in the order of its positions."""
    row = session.execute(_GROUP, {"group": lease.group_id}).one()
    wanted = {"group": lease.group_id, "me": lease.annotator_id}
    rows = session.execute(_IMAGES, wanted)
    images = {image.id: image for image in rows}
    return AssignmentView(
        assignment_id=lease.id,
        lease_token=lease.token,
        lease_expires_at=lease.expires_at,
        lease_seconds=(lease.expires_at - now).total_seconds(),
        group=AssignedGroup(
            prompt=PromptText(text=row.prompt_text),
            question=QuestionText(question_id=row.question_id, text=row.text),
            content_warning=row.content_warning,
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
        guidelines_version=row.guidelines_version,
        guidelines=row.guidelines,
    )
