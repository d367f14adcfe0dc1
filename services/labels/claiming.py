"""Which group a person is given next.

Gold to a newcomer, and now and then; else started groups first, then by priority, then by
(1 - P0_g) 2^(-s_g / 4).
A group is free while its live leases and its submissions by people who count are fewer than its
overlap. A lease that has run out is no lease, whether anybody has noticed or not.
"""

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from services.labels.aggregation import FRESHNESS
from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, Assignment, Group, Label, Question, Run

if TYPE_CHECKING:
    from services.labels.settings import Settings


def draw(*keys: str) -> float:
    """A number in [0, 1), the same for the same keys."""
    digest = hashlib.blake2b(":".join(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def next_group(
    session: Session,
    annotator_id: str,
    question_id: str | None,
    key: str,
    now: datetime,
    settings: "Settings",
) -> str | None:
    """The group to lease, its row locked; None where there is nothing for this person. `key`, the
    id of the lease, decides by chance whether it is gold, and which."""
    if _is_new(session, annotator_id, settings) or draw("gold", key) < settings.gold_rate:
        candidates = session.scalars(_gold(annotator_id, question_id)).all()
        if candidates:
            return min(candidates, key=lambda id: draw("gold", key, id))
    query = _ordinary(annotator_id, question_id, now).with_for_update(of=Group, skip_locked=True)
    passed: set[str] = set()
    while True:
        # Where rows can be locked, a rival may have leased the group since this statement looked.
        first = query.where(Group.id.not_in(passed)) if passed else query
        found = session.execute(first).first()
        if found is None or has_free_slot(session, found.id, found.overlap, now):
            return found.id if found else None
        passed.add(found.id)


def _is_new(session: Session, annotator_id: str, settings: "Settings") -> bool:
    """Whether the person has answered too little gold to be given anything else."""
    if settings.gold_first == 0:
        return False
    answered = select(Annotator.gold_answered).where(Annotator.id == annotator_id)
    return (session.scalar(answered) or 0) < settings.gold_first


def has_free_slot(session: Session, group_id: str, overlap: int, now: datetime) -> bool:
    """Whether somebody else may label the group; certain only for who holds its row."""
    return (session.scalar(_taken(now).where(Assignment.group_id == group_id)) or 0) < overlap


def _taken(now: datetime) -> Select[Any]:
    live = and_(Assignment.state == "live", Assignment.expires_at > now)
    counts = and_(Assignment.state == "submitted", vote_weight > 0)
    return (
        select(func.count())
        .select_from(Assignment)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(or_(live, counts))
    )


def _ordinary(annotator_id: str, question_id: str | None, now: datetime) -> Select[Any]:
    taken = _taken(now).where(Assignment.group_id == Group.id).correlate(Group).scalar_subquery()
    mine = and_(Assignment.group_id == Group.id, Assignment.annotator_id == annotator_id)
    live = and_(Assignment.state == "live", Assignment.expires_at > now)
    done = or_(Assignment.state.in_(("submitted", "skipped")), live)
    labels = (
        select(func.count())
        .select_from(Label)
        .where(Label.group_id == Group.id, Label.annotator_id == annotator_id)
        .scalar_subquery()
    )
    return (
        _asked(question_id, gold=False)
        .add_columns(Group.overlap)
        .join(Run, Run.id == Group.run_id)
        .where(or_(Group.deadline_at.is_(None), Group.deadline_at > now))
        .where(taken < Group.overlap, ~exists().where(mine, done), labels < Group.num_images)
        .order_by(
            (Group.num_labels > 0).desc(),
            Group.priority.desc(),
            (Group.order_weight - Run.newest_policy / float(FRESHNESS)).desc(),
            Group.created_at,
        )
        .limit(1)
    )


def _gold(annotator_id: str, question_id: str | None) -> Select[Any]:
    """Gold groups that this person has not seen."""
    seen = exists().where(Assignment.group_id == Group.id, Assignment.annotator_id == annotator_id)
    labelled = exists().where(Label.group_id == Group.id, Label.annotator_id == annotator_id)
    return _asked(question_id, gold=True).where(~seen, ~labelled)


def _asked(question_id: str | None, gold: bool) -> Select[Any]:
    query = (
        select(Group.id)
        .join(Question, Question.id == Group.question_id)
        .where(Group.state == "open", Group.is_gold == gold, Question.state == "active")
    )
    return query if question_id is None else query.where(Group.question_id == question_id)
