"""Groups as labelling and aggregation need them: with their images and votes, in three statements
however many groups there are.

The groups' rows are locked first and the votes read after that, so whoever changes what a group
says knows all that was said. (SQLite has one writer and needs no lock.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Table, bindparam, case, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Annotator, Group, GroupImage, Label, Question, Run


def core(mapped: Any) -> Table:
    """The table under a mapped class, for statements that skip the object layer."""
    return cast(Table, mapped.__table__)


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


vote_weight = case((Annotator.state == "excluded", 0.0), else_=Annotator.weight)
"""w_j in SQL."""

_IDS = bindparam("ids", expanding=True)
_OF_IMAGES = select(GroupImage.group_id).where(GroupImage.id.in_(_IDS))
_GROUPS = (
    select(
        Group.id,
        Group.run_id,
        Group.question_id,
        Group.policy_version,
        Group.auto_rewards,
        Group.overlap,
        Group.deadline_at,
        Group.is_gold,
        Group.state,
        Group.ready_at,
        Group.reward_revision,
        Question.guidelines_version,
        Run.newest_policy,
        Run.like_rate,
        Run.rate_labels,
        Run.rate_seq,
        Run.prior,
    )
    .join(Question, Question.id == Group.question_id)
    .join(Run, Run.id == Group.run_id)
    .order_by(Group.id)
    .with_for_update(of=Group)
)
_BY_ID, _BY_IMAGE = (_GROUPS.where(Group.id.in_(ids)) for ids in (_IDS, _OF_IMAGES))
_IMAGES = (
    select(
        GroupImage.id,
        GroupImage.group_id,
        GroupImage.index.label("place"),
        GroupImage.gold_answer,
    )
    .where(GroupImage.group_id.in_(_IDS))
    .order_by(GroupImage.group_id, GroupImage.index)
)
_VOTES = (
    select(*core(Label).c, vote_weight.label("weight"))
    .join(Annotator, Annotator.id == Label.annotator_id)
    .where(Label.group_id.in_(_IDS))
)
_VOTES_OF = _VOTES.where(Label.annotator_id.in_(bindparam("people", expanding=True)))


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
