"""Which group a person is given next, and which images of it.

Gold to a newcomer, and now and then; else started groups first, then by priority, then by
(1 - P0_g) 2^(-s_g / 4).
Of an ordinary group a person is asked what it lacks (`places`), of gold all.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, bindparam, exists, func, or_, select
from sqlalchemy.orm import Session

from services.labels.aggregation import FRESHNESS
from services.labels.places import is_live, places_of
from services.labels.store.tables import (
    Annotator,
    Assignment,
    Group,
    GroupImage,
    Label,
    Question,
    Run,
    core,
)

if TYPE_CHECKING:
    from services.labels.settings import Settings


@dataclass(frozen=True)
class Offer:
    """What one person is asked."""

    group_id: str
    image_ids: list[str]


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
) -> Offer | None:
    """The group to lease, its row locked; None where there is nothing for this person. `key`, the
    id of the lease, decides by chance whether it is gold, and which."""
    any_question = question_id is None
    given: dict[str, Any] = {"me": annotator_id, "question": question_id, "now": now}
    if _is_new(session, annotator_id, settings) or draw("gold", key) < settings.gold_rate:
        candidates = session.scalars(_GOLD[any_question], given).all()
        if candidates:
            chosen = min(candidates, key=lambda id: draw("gold", key, id))
            return Offer(chosen, [*session.scalars(_IMAGES_OF, {"group": chosen})])
    passed: list[str] = []
    while found := session.execute(_ORDINARY[any_question], {**given, "passed": passed}).first():
        # The counts tell that the group lacks answers, not whose. And where rows can be locked, a
        # rival may have leased it since this statement looked.
        wanted = places_of(session, found.id, now).wanted(annotator_id, found.overlap)
        if wanted:
            return Offer(found.id, wanted)
        passed.append(found.id)
    return None


def _is_new(session: Session, annotator_id: str, settings: "Settings") -> bool:
    """Whether the person has answered too little gold to be given anything else."""
    if settings.gold_first == 0:
        return False
    return (session.scalar(_ANSWERED, {"me": annotator_id}) or 0) < settings.gold_first


_annotators, _assignments, _groups, _images, _labels, _questions, _runs = (
    core(mapped) for mapped in (Annotator, Assignment, Group, GroupImage, Label, Question, Run)
)
_ME, _QUESTION = bindparam("me"), bindparam("question")
_MINE = and_(
    _assignments.c.group_id == _groups.c.id,
    _assignments.c.annotator_id == _ME,
)
_MY_LABELS = (_labels.c.group_id == _groups.c.id, _labels.c.annotator_id == _ME)
_ANSWERED = select(_annotators.c.gold_answered).where(_annotators.c.id == _ME)
_IMAGES_OF = select(_images.c.id).where(_images.c.group_id == bindparam("group"))
_PLACES = _groups.c.num_images * _groups.c.overlap


def _ordinary() -> Select[Any]:
    """Of what leases say only what is the same for every group is asked, once a claim: asked group
    by group, PostgreSQL went through every live lease for each."""
    leased_out = (
        select(_groups.c.id)
        .join(_assignments, _assignments.c.group_id == _groups.c.id)
        .where(is_live)
        .group_by(_groups.c.id)
        .having(_groups.c.num_answers + func.sum(_assignments.c.num_unanswered) >= _PLACES)
    )
    mine = select(_assignments.c.group_id).where(
        _assignments.c.annotator_id == _ME,
        or_(_assignments.c.state.in_(("skipped", "revoked")), is_live),
    )
    labels = select(func.count()).select_from(_labels).where(*_MY_LABELS).scalar_subquery()
    return (
        _asked(gold=False)
        .add_columns(_groups.c.overlap)
        .join(_runs, _runs.c.id == _groups.c.run_id)
        .where(or_(_groups.c.deadline_at.is_(None), _groups.c.deadline_at > bindparam("now")))
        .where(_groups.c.num_answers < _PLACES)
        .where(_groups.c.id.not_in(leased_out.correlate(None)), _groups.c.id.not_in(mine))
        .where(or_(_groups.c.num_labels == 0, labels < _groups.c.num_images))
        .where(_groups.c.id.not_in(bindparam("passed", expanding=True)))
        .order_by(
            (_groups.c.num_labels > 0).desc(),
            _groups.c.priority.desc(),
            (_groups.c.order_weight - _runs.c.newest_policy / float(FRESHNESS)).desc(),
            _groups.c.created_at,
        )
        .limit(1)
        .with_for_update(of=_groups, skip_locked=True)
    )


def _gold() -> Select[Any]:
    """Gold groups that this person has not seen."""
    return _asked(gold=True).where(~exists().where(_MINE), ~exists().where(*_MY_LABELS))


def _asked(gold: bool) -> Select[Any]:
    return (
        select(_groups.c.id)
        .join(_questions, _questions.c.id == _groups.c.question_id)
        .where(_groups.c.state == "open", _groups.c.is_gold == gold)
        .where(_questions.c.state == "active")
    )


def _by_question(query: Select[Any]) -> dict[bool, Select[Any]]:
    """By whether any question will do."""
    return {True: query, False: query.where(_groups.c.question_id == _QUESTION)}


# Made once: to put such a statement together takes as long as to run it.
_ORDINARY, _GOLD = _by_question(_ordinary()), _by_question(_gold())
