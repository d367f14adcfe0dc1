"""How labelling does: what the dashboard's Labels page shows, of one run or of all.

Everybody who may look sees counts; names, leases and the reasons of dead letters are looked up for
admins alone. What grows without end is counted over its newest rows: nobody's look takes longer
because there are many labels. Gold is left out but where it says so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, cast, extract, func, select
from sqlalchemy.orm import Session

from services.labels import reward_queue
from services.labels.diagnosis import Habits, diagnose
from services.labels.group_rows import vote_weight
from services.labels.pace import Pace, pace
from services.labels.reward_queue import QueueState
from services.labels.scrape import ACTIVE, STATES
from services.labels.store.tables import Annotator, Assignment, Group, Label, Question
from tdm_core.clustered_share import Share, share_of
from tdm_core.label_posterior import VOTES

MINUTES = 60
"""How far back labels are counted by the minute."""
COUNTED = 20_000
"""Newest labels that are."""
ANSWERS = 2000
"""Newest answers that like rates and times are of."""
LISTED = 100
"""Leases and dead letters, at most."""


@dataclass(frozen=True)
class Minute:
    """Labels that arrived in one minute."""

    start: datetime
    num_labels: int


@dataclass(frozen=True)
class QuestionCounts:
    """What was answered to a question, of the newest answers of people whose votes count."""

    question_id: str
    num_likes: int
    num_dislikes: int
    num_unsure: int
    num_skips: int
    like_rate: Share | None
    """Likes among likes and dislikes, a group's votes being one cluster; None without any."""


@dataclass(frozen=True)
class Queue:
    """What people have before them."""

    groups: dict[str, int]
    """By state; every state is there."""
    num_wanted: int
    """Answers that open groups still lack."""
    oldest_open_at: datetime | None
    num_leases: int
    """Groups that somebody holds."""


@dataclass(frozen=True)
class Gold:
    """Groups whose answers an admin knows, and what follows for people; of the whole service."""

    num_groups: int
    """That are asked."""
    accuracy: Share | None
    """Right ones among all answers, a person's being one cluster; None without any."""
    num_suspended: int
    """People whose votes do not count, by their gold answers."""
    num_excluded: int
    """People whom an admin has shut out."""


@dataclass(frozen=True)
class Lease:
    """A group that somebody holds."""

    assignment_id: str
    group_id: str
    annotator_id: str
    name: str
    granted_at: datetime
    expires_at: datetime
    num_unanswered: int


@dataclass(frozen=True)
class Labeller:
    """A person, with the habits of their newest votes and their gold record."""

    name: str
    weight: float
    """Of their votes: 0 is suspended."""
    gold_right: int
    gold_answered: int
    habits: Habits


@dataclass(frozen=True)
class DeadLetter:
    """A message to the trainer that nobody acked."""

    group_id: str
    reason: str
    created_at: datetime


@dataclass(frozen=True)
class ForAdmins:
    """What has names in it."""

    people: list[Labeller]
    """Who gave the newest votes; the flagged first."""
    leases: list[Lease]
    """Soonest over first."""
    dead_letters: list[DeadLetter]
    """Oldest first."""


@dataclass(frozen=True)
class Statistics:
    """How labelling does."""

    at: datetime
    run_id: str | None
    """None is all runs."""
    num_labels: int
    """That stand."""
    newest_at: datetime | None
    """When the newest label came, gold too."""
    minutes: list[Minute]
    """Whole ones, oldest first; fewer than `MINUTES` where labels are many."""
    num_active: int
    """People who labelled in the last 15 minutes, gold too."""
    pace: Pace
    queue: Queue
    questions: list[QuestionCounts]
    alpha: float | None
    """Krippendorff's, over the newest votes."""
    alpha_interval: tuple[float, float] | None
    """Its 95% interval, low and high; null where the groups are too few or too alike to tell."""
    num_shared_images: int
    """Images that it is of."""
    gold: Gold
    rewards: QueueState
    """Messages to the trainer."""
    for_admins: ForAdmins | None


def is_used(session: Session) -> bool:
    """Whether there is anything to ask people, or whether the database holds keys alone."""
    return session.scalar(select(Question.id).limit(1)) is not None


def statistics(
    session: Session,
    now: datetime,
    run_id: str | None = None,
    with_names: bool = False,
    counted: int = COUNTED,
    answers: int = ANSWERS,
) -> Statistics:
    """Look everything up; `with_names` for an admin, `counted` labels by the minute, the times of
    groups that the newest `answers` are of."""
    found = diagnose(session, run_id)
    groups = session.execute(_groups(run_id)).all()
    return Statistics(
        now,
        run_id,
        sum(row.num_labels for row in groups),
        session.scalar(select(_newest(run_id, 1).c.received_at)),
        _minutes(session, now, run_id, counted),
        _num_active(session, now, run_id),
        pace(session, now, _newest(run_id, answers), answers),
        _queue(session, now, run_id, groups),
        _questions(session, run_id),
        found.alpha,
        found.alpha_interval,
        found.num_shared_images,
        _gold(session),
        reward_queue.state(session, now, run_id),
        _for_admins(session, now, run_id, found.people) if with_names else None,
    )


def _of(table: Any, run_id: str | None) -> list[ColumnElement[bool]]:
    return [] if run_id is None else [table.run_id == run_id]


def _newest(run_id: str | None, limit: int, *conditions: ColumnElement[bool]) -> Any:
    """The newest labels by number, which has an index."""
    query = select(Label).where(*_of(Label, run_id), *conditions)
    return query.order_by(Label.seq.desc()).limit(limit).subquery()


def _minutes(session: Session, now: datetime, run_id: str | None, counted: int) -> list[Minute]:
    """The present minute is not over, and that of the oldest label that was counted not whole."""
    newest = _newest(run_id, counted, ~Label.is_gold)
    minute = cast(extract("epoch", newest.c.received_at), BigInteger) // 60
    rows = session.execute(select(minute, func.count()).group_by(minute)).all()
    counts = {int(number): count for number, count in rows}
    end = int(now.timestamp()) // 60
    first = end - MINUTES
    if sum(counts.values()) == counted:
        first = max(first, min(counts) + 1)
    return [
        Minute(datetime.fromtimestamp(60 * number, UTC), counts.get(number, 0))
        for number in range(first, end)
    ]


def _num_active(session: Session, now: datetime, run_id: str | None) -> int:
    newest = _newest(run_id, ANSWERS)
    people = select(func.count(newest.c.annotator_id.distinct()))
    return session.scalar(people.where(newest.c.received_at > now - ACTIVE)) or 0


def _groups(run_id: str | None) -> Any:
    """By state: their number, labels that stand, answers that they lack, the oldest one's time."""
    return (
        select(
            Group.state,
            func.count().label("num"),
            func.sum(Group.num_labels).label("num_labels"),
            func.sum(Group.num_images * Group.overlap - Group.num_answers).label("num_lacking"),
            func.min(Group.created_at).label("oldest_at"),
        )
        .where(*_of(Group, run_id), ~Group.is_gold)
        .group_by(Group.state)
    )


def _queue(session: Session, now: datetime, run_id: str | None, groups: Sequence[Any]) -> Queue:
    by_state = {row.state: row for row in groups}
    counts = {state: by_state[state].num if state in by_state else 0 for state in STATES}
    waiting = by_state.get("open")
    num_leases = session.scalar(_leases(now, run_id, func.count())) or 0
    if waiting is None:
        return Queue(counts, 0, None, num_leases)
    return Queue(counts, waiting.num_lacking, waiting.oldest_at, num_leases)


def _leases(now: datetime, run_id: str | None, *columns: Any) -> Any:
    live = (Assignment.state == "live", Assignment.expires_at > now)
    query = select(*columns).select_from(Assignment).where(*live)
    if run_id is None:
        return query
    return query.join(Group, Group.id == Assignment.group_id).where(Group.run_id == run_id)


def _questions(session: Session, run_id: str | None) -> list[QuestionCounts]:
    newest = _newest(run_id, ANSWERS, ~Label.is_gold, Label.retracted_at.is_(None))
    rows = session.execute(
        select(newest.c.question_id, newest.c.group_id, newest.c.value, func.count())
        .join(Annotator, Annotator.id == newest.c.annotator_id)
        .where(vote_weight > 0)
        .group_by(newest.c.question_id, newest.c.group_id, newest.c.value)
    )
    found: dict[str, dict[str, dict[str, int]]] = {id: {} for id in _asked(session, run_id)}
    for question_id, group_id, value, count in rows:
        found.setdefault(question_id, {}).setdefault(group_id, {})[value] = count
    return [_counted(question_id, groups.values()) for question_id, groups in found.items()]


def _asked(session: Session, run_id: str | None) -> list[str]:
    """Questions with groups of that run; all that are active for all runs."""
    if run_id is None:
        query = select(Question.id).where(Question.state == "active")
    else:
        query = select(Group.question_id).where(Group.run_id == run_id).distinct()
    return sorted(session.scalars(query))


def _counted(question_id: str, groups: Collection[Mapping[str, int]]) -> QuestionCounts:
    totals = [sum(group.get(value, 0) for group in groups) for value in VOTES]
    likes = [(group.get("like", 0), group.get("dislike", 0)) for group in groups]
    return QuestionCounts(question_id, *totals, like_rate=share_of((x, x + y) for x, y in likes))


def _gold(session: Session) -> Gold:
    asked = select(func.count()).where(Group.is_gold, Group.state == "open")
    suspended = select(func.count()).where(Annotator.weight == 0, Annotator.state == "active")
    excluded = select(func.count()).where(Annotator.state == "excluded")
    answers = select(Annotator.gold_right, Annotator.gold_answered)
    records = session.execute(answers.where(Annotator.gold_answered > 0)).all()
    counts = [session.scalar(query) or 0 for query in (asked, suspended, excluded)]
    return Gold(counts[0], share_of((right, num) for right, num in records), *counts[1:])


def _for_admins(
    session: Session, now: datetime, run_id: str | None, habits: Sequence[Habits]
) -> ForAdmins:
    ids = [each.annotator_id for each in habits]
    rows = {row.id: row for row in session.scalars(select(Annotator).where(Annotator.id.in_(ids)))}
    people = [
        Labeller(row.name, row.weight, row.gold_right, row.gold_answered, each)
        for each, row in ((each, rows[each.annotator_id]) for each in habits)
    ]
    columns = (
        Assignment.id,
        Assignment.group_id,
        Assignment.annotator_id,
        Annotator.name,
        Assignment.granted_at,
        Assignment.expires_at,
        Assignment.num_unanswered,
    )
    held = _leases(now, run_id, *columns).join(Annotator, Annotator.id == Assignment.annotator_id)
    leases = session.execute(held.order_by(Assignment.expires_at).limit(LISTED))
    dead = [
        DeadLetter(letter.group_id, letter.reason or "", letter.created_at)
        for letter in reward_queue.dead_letters(session, LISTED, run_id)
    ]
    return ForAdmins(people, [Lease(*row) for row in leases], dead)
