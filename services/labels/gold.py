"""Gold questions: groups whose answers an admin knows. Who misses too many has no vote.

The gate shuts below 80% after ten answers and opens again above it, for all of a person's labels,
past ones too. A miss is never acted on alone, and `unsure` and `skip` are no answers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from services.labels.aggregation import refresh_later
from services.labels.audit import record_audit
from services.labels.events import record_event
from services.labels.group_rows import LoadedGroup
from services.labels.store.tables import Annotator, Assignment, Group, GroupImage, Label
from services.web.problems import Problem
from tdm_core.label_posterior import gold_gate

if TYPE_CHECKING:
    from services.labels.settings import Settings

DECIDED = ("like", "dislike")


@dataclass(frozen=True)
class GoldAnswer:
    """What is right for one image, and what a person may be told of why."""

    index: int
    answer: str
    reason: str | None = None


def mark(
    session: Session,
    group_id: str,
    answers: Iterable[GoldAnswer],
    now: datetime,
    settings: "Settings",
) -> tuple[Group, bool]:
    """Make a group gold by its answers, or change them; the group, and whether it is newly gold.

    409 where people have begun to label it as an ordinary one: their labels were no test.
    """
    group = session.get(Group, group_id, with_for_update=True)
    if group is None:
        raise Problem(404, "not-found", "Not found", f"there is no group {group_id!r}")
    fresh = not group.is_gold
    if fresh and (group.state != "open" or _is_started(session, group_id)):
        detail = f"group {group_id!r} is {group.state} or begun; PUT a group for gold alone"
        raise Problem(409, "group-started", "The group has been started", detail)
    _write_answers(session, group_id, answers)
    group.is_gold = True
    group.state = "open"
    group.revision += 0 if fresh else 1
    session.flush()
    if not fresh:
        _recount(session, group_id, now, settings)
    return group, fresh


def retire(session: Session, group: Group) -> None:
    """Ask it no more; what it has told of people stays."""
    group.state = "retired"
    group.revision += 1
    session.flush()


def answered(
    session: Session,
    group: LoadedGroup,
    labels: Iterable[Mapping[str, Any]],
    now: datetime,
    settings: "Settings",
) -> None:
    """Count new answers to a gold group."""
    answers = {image.id: image.gold_answer for image in group.images}
    counts: dict[str, tuple[int, int]] = {}
    for label in labels:
        right, told = worth(label["value"], answers[label["image_id"]])
        before = counts.get(label["annotator_id"], (0, 0))
        counts[label["annotator_id"]] = (before[0] + right, before[1] + told)
    for annotator_id, (right, told) in counts.items():
        count(session, annotator_id, right, told, now, settings)


def worth(value: str | None, answer: str | None) -> tuple[int, int]:
    """(right answers, answers) that a value counts for; None was retracted."""
    if answer is None or value not in DECIDED:
        return 0, 0
    return int(value == answer), 1


def count(
    session: Session,
    annotator_id: str,
    right: int,
    told: int,
    now: datetime,
    settings: "Settings",
) -> None:
    """Add to a person's gold record, and shut or open the gate where that moves it."""
    if not (right or told):
        return
    person = session.get_one(Annotator, annotator_id, with_for_update=True)
    person.gold_right += right
    person.gold_answered += told
    gate(session, person, now, settings)
    session.flush()


def gate(session: Session, person: Annotator, now: datetime, settings: "Settings") -> None:
    """Set the weight of a person's votes by their gold record: logged, and undone the same way."""
    bar = (settings.gold_min_answers, settings.gold_min_accuracy)
    weight = gold_gate(person.gold_right, person.gold_answered, *bar)
    if weight == person.weight:
        return
    before, after = {"weight": person.weight}, {"weight": weight}
    person.weight = weight
    person.revision += 1
    session.flush()
    refresh_later(session, person.id)
    action = "annotator.gate-opened" if weight else "annotator.gate-shut"
    record_audit(session, "gold", action, f"annotator:{person.id}", before, after, now)
    told = {"annotator_id": person.id, "right": person.gold_right, "of": person.gold_answered}
    record_event(session, "annotators", action, told, now, audience="admin")


def _recount(session: Session, group_id: str, now: datetime, settings: "Settings") -> None:
    """Count the gold records of everybody who has answered this group from the start."""
    here = select(Label.annotator_id).where(Label.group_id == group_id).distinct()
    query = (
        select(
            Label.annotator_id,
            func.sum(case((Label.value == GroupImage.gold_answer, 1), else_=0)),
            func.count(),
        )
        .join(GroupImage, GroupImage.id == Label.image_id)
        .where(Label.annotator_id.in_(here), Label.is_gold, Label.retracted_at.is_(None))
        .where(Label.value.in_(DECIDED), GroupImage.gold_answer.is_not(None))
        .group_by(Label.annotator_id)
    )
    counts = {annotator_id: (right, told) for annotator_id, right, told in session.execute(query)}
    for annotator_id in session.scalars(here).all():
        person = session.get_one(Annotator, annotator_id, with_for_update=True)
        person.gold_right, person.gold_answered = counts.get(annotator_id, (0, 0))
        gate(session, person, now, settings)


def _write_answers(session: Session, group_id: str, answers: Iterable[GoldAnswer]) -> None:
    images = session.scalars(select(GroupImage).where(GroupImage.group_id == group_id)).all()
    wanted = {answer.index: answer for answer in answers}
    unknown = sorted(wanted.keys() - {image.index for image in images})
    if unknown:
        detail = f"group {group_id!r} has images 0 to {len(images) - 1}, none of index {unknown[0]}"
        raise Problem(422, "image-unknown", "Unknown image", detail)
    for image in images:
        answer = wanted.get(image.index)
        image.gold_answer = answer.answer if answer else None
        image.gold_reason = answer.reason if answer else None
    session.flush()


def _is_started(session: Session, group_id: str) -> bool:
    leased = select(Assignment.id).where(Assignment.group_id == group_id)
    labelled = select(Label.id).where(Label.group_id == group_id)
    return any(session.execute(query.limit(1)).first() for query in (leased, labelled))
