"""Groups as labelling and aggregation need them: with their images and votes, in three statements
however many groups there are. They name columns of tables, not attributes of mapped classes: the
object layer would take longer over them than the database does.

The groups' rows are locked first and the votes read after that, so whoever changes what a group
says knows all that was said. (SQLite has one writer and needs no lock.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import bindparam, case, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Annotator, Group, GroupImage, Label, Question, Run, core


@dataclass(slots=True)
class Vote:
    """A person's present answer on an image; a retracted one is an answer without a vote."""

    label: Mapping[str, Any]
    """The label's columns."""
    weight: float
    """w_j: 0 for a person who is excluded or below the gold bar."""


@dataclass(slots=True)
class LoadedGroup:
    """A group that this transaction may change."""

    row: Any
    """Columns of the group, its question and its run."""
    images: list[Any] = field(default_factory=list)
    """Rows (id, group_id, place, gold_answer), by place, which is the index."""
    votes: dict[tuple[str, str], Vote] = field(default_factory=dict)
    """(image id, annotator id) to the answer."""

    @property
    def id(self) -> str:
        """Group id."""
        return self.row.id


_annotators, _groups, _images, _labels, _questions, _runs = (
    core(mapped) for mapped in (Annotator, Group, GroupImage, Label, Question, Run)
)
vote_weight = case((_annotators.c.state == "excluded", 0.0), else_=_annotators.c.weight)
"""w_j in SQL."""

_IDS = bindparam("ids", expanding=True)
_OF_IMAGES = select(_images.c.group_id).where(_images.c.id.in_(_IDS))
_GROUPS = (
    select(
        _groups.c.id,
        _groups.c.run_id,
        _groups.c.question_id,
        _groups.c.policy_version,
        _groups.c.auto_rewards,
        _groups.c.overlap,
        _groups.c.deadline_at,
        _groups.c.is_gold,
        _groups.c.state,
        _groups.c.ready_at,
        _groups.c.reward_revision,
        _questions.c.guidelines_version,
        _runs.c.newest_policy,
        _runs.c.like_rate,
        _runs.c.rate_labels,
        _runs.c.rate_seq,
        _runs.c.prior,
        _runs.c.influence,
    )
    .join(_questions, _questions.c.id == _groups.c.question_id)
    .join(_runs, _runs.c.id == _groups.c.run_id)
    .order_by(_groups.c.id)
    .with_for_update(of=_groups)
)
_BY_ID, _BY_IMAGE = (_GROUPS.where(_groups.c.id.in_(ids)) for ids in (_IDS, _OF_IMAGES))
_IMAGES = (
    select(
        _images.c.id,
        _images.c.group_id,
        _images.c.index.label("place"),
        _images.c.gold_answer,
    )
    .where(_images.c.group_id.in_(_IDS))
    .order_by(_images.c.group_id, _images.c.index)
)
_VOTES = (
    select(*_labels.c, vote_weight.label("weight"))
    .join(_annotators, _annotators.c.id == _labels.c.annotator_id)
    .where(_labels.c.group_id.in_(_IDS))
)
_VOTES_OF = _VOTES.where(_labels.c.annotator_id.in_(bindparam("people", expanding=True)))


def groups_by_id(session: Session, ids: Iterable[str]) -> dict[str, LoadedGroup]:
    """These groups and every vote on them."""
    groups = _load(session, _BY_ID, ids)
    _read_votes(session, groups, _VOTES, {"ids": [*groups]})
    return groups


def groups_by_image(
    session: Session, image_ids: Iterable[str], people: Iterable[str]
) -> dict[str, LoadedGroup]:
    """The groups of these images; a gold group, which everybody labels, has only these people's
    votes."""
    groups = _load(session, _BY_IMAGE, image_ids)
    gold = [id for id, group in groups.items() if group.row.is_gold]
    plain = [id for id, group in groups.items() if not group.row.is_gold]
    _read_votes(session, groups, _VOTES, {"ids": plain})
    _read_votes(session, groups, _VOTES_OF, {"ids": gold, "people": [*people]})
    return groups


def _load(session: Session, query: Any, ids: Iterable[str]) -> dict[str, LoadedGroup]:
    rows = session.execute(query, {"ids": [*ids]})
    groups = {row.id: LoadedGroup(row) for row in rows}
    for image in session.execute(_IMAGES, {"ids": [*groups]}) if groups else ():
        groups[image.group_id].images.append(image)
    return groups


def _read_votes(
    session: Session, groups: dict[str, LoadedGroup], query: Any, values: dict[str, list[str]]
) -> None:
    for row in session.execute(query, values) if values["ids"] else ():
        label = cast(Mapping[str, Any], row._mapping)
        groups[row.group_id].votes[row.image_id, row.annotator_id] = Vote(label, row.weight)
