"""Groups as labelling and aggregation need them: with their images and votes, in two statements.

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
    """Rows (image_id, index, gold_answer), by index."""
    votes: dict[tuple[str, str], Vote] = field(default_factory=dict)
    """(image id, annotator id) to the answer."""

    @property
    def id(self) -> str:
        """Group id."""
        return self.row.id


vote_weight = case((Annotator.state == "excluded", 0.0), else_=Annotator.weight)
"""w_j in SQL."""

_GROUPS = (
    select(
        Group.id,
        Group.run_id,
        Group.question_id,
        Group.policy_version,
        Group.auto_rewards,
        Group.num_images,
        Group.overlap,
        Group.deadline_at,
        Group.is_gold,
        Group.state,
        Group.aggregate,
        Group.reward_revision,
        Group.num_labels,
        Group.created_at,
        Question.guidelines_version,
        Run.newest_policy,
        Run.like_rate,
        Run.rate_labels,
        Run.rate_seq,
        Run.prior,
        GroupImage.id.label("image_id"),
        GroupImage.index,
        GroupImage.gold_answer,
    )
    .join(Question, Question.id == Group.question_id)
    .join(Run, Run.id == Group.run_id)
    .join(GroupImage, GroupImage.group_id == Group.id)
    .order_by(Group.id, GroupImage.index)
    .with_for_update(of=Group)
)
_BY_ID = _GROUPS.where(Group.id.in_(bindparam("ids", expanding=True)))
_BY_IMAGE = _GROUPS.where(
    Group.id.in_(
        select(GroupImage.group_id).where(GroupImage.id.in_(bindparam("ids", expanding=True)))
    )
)
_VOTES = (
    select(*core(Label).c, vote_weight.label("weight"))
    .join(Annotator, Annotator.id == Label.annotator_id)
    .where(Label.group_id.in_(bindparam("groups", expanding=True)))
)
_VOTES_OF = _VOTES.where(Label.annotator_id.in_(bindparam("people", expanding=True)))


def groups_by_id(session: Session, ids: Iterable[str]) -> dict[str, LoadedGroup]:
    """These groups and every vote on them."""
    groups = _load(session, _BY_ID, ids)
    _read_votes(session, groups, [*groups], ())
    return groups


def groups_by_image(
    session: Session, image_ids: Iterable[str], people: Iterable[str]
) -> dict[str, LoadedGroup]:
    """The groups of these images; a gold group, which everybody labels, has only these people's
    votes."""
    groups = _load(session, _BY_IMAGE, image_ids)
    gold = [id for id, group in groups.items() if group.row.is_gold]
    _read_votes(session, groups, [id for id in groups if id not in gold], ())
    _read_votes(session, groups, gold, people)
    return groups


def _load(session: Session, query: Any, ids: Iterable[str]) -> dict[str, LoadedGroup]:
    groups: dict[str, LoadedGroup] = {}
    for row in session.execute(query, {"ids": [*ids]}):
        group = groups.setdefault(row.id, LoadedGroup(row))
        group.images.append(row)
    return groups


def _read_votes(
    session: Session, groups: dict[str, LoadedGroup], ids: list[str], people: Iterable[str]
) -> None:
    if not ids:
        return
    values = {"groups": ids, "people": [*people]}
    for row in session.execute(_VOTES_OF if values["people"] else _VOTES, values):
        label = cast(Mapping[str, Any], row._mapping)
        groups[row.group_id].votes[row.image_id, row.annotator_id] = Vote(label, row.weight)
