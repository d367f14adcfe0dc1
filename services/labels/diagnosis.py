"""How people label: who agrees with whom, and whom an admin should look at.

Over the newest labels (`WINDOW`), gold left out. A flag is a reason to look, never a sentence:
taste differs honestly. Nothing here makes a reward.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Annotator, Label, core
from tdm_core.label_agreement import DawidSkene, alpha_interval, dawid_skene, krippendorff_alpha
from tdm_core.label_habits import CROWD, Vote, has_shifted, is_faster, pace, unlike_others

WINDOW = 2000
"""Newest labels that are looked at."""
FEWEST = 20
"""Likes and dislikes below which nothing is said of a person."""
TOO_FAST_MS = 300
"""Median time below which nobody can have looked."""
RECENT = 40
"""Newest votes that are held against a person's own before."""
BLIND = 0.1
"""Youden's J below which a person's votes do not depend on the image."""
FAR_MORE = 5
"""Times the others' labels on average, where there are `CROWD` people. Not the median person's:
where most look in once, whoever comes back would be above it."""
VOTES = ("like", "dislike")
Flag = Literal[
    "too-fast",
    "always-the-same",
    "at-random",
    "far-more",
    "faster-than-others",
    "faster-than-before",
    "likes-unlike-others",
    "likes-unlike-before",
]

_labels, _people = core(Label), core(Annotator)


@dataclass(frozen=True)
class Habits:
    """How one person labels."""

    annotator_id: str
    state: str
    num_votes: int
    """Likes and dislikes."""
    like_rate: float
    median_latency_ms: float | None
    """None where no label tells its time."""
    informativeness: float | None
    """Youden's J by Dawid-Skene: 1 always with the others' verdict, 0 a coin; None without
    others."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Diagnosis:
    """What the newest labels tell."""

    num_votes: int
    num_shared_images: int
    """Images that more than one person judged: what agreement is of."""
    alpha: float | None
    """Krippendorff's; None where there is no disagreement to expect."""
    alpha_interval: tuple[float, float] | None
    """Its 95% interval; None where the groups cannot tell one."""
    people: list[Habits]
    """The flagged first, then by their number of votes."""


def diagnose(
    session: Session, run_id: str | None = None, question_id: str | None = None
) -> Diagnosis:
    """Look at the newest likes and dislikes, of one run or question if given."""
    rows = session.execute(_newest(run_id, question_id)).all()
    by_image: dict[str, list[Any]] = defaultdict(list)
    by_person: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_image[row.image_id].append(row)
        by_person[row.annotator_id].append(row)
    shared = {id: votes for id, votes in by_image.items() if len(votes) > 1}
    model = _model(shared)
    like_rate = sum(row.value == "like" for row in rows) / max(len(rows), 1)
    departed = _departures(rows)
    people = [
        _habits(votes, model, like_rate, _others_mean(by_person, who), departed[who])
        for who, votes in by_person.items()
    ]
    alpha = krippendorff_alpha([row.value for row in votes] for votes in by_image.values())
    people.sort(key=lambda person: (not person.flags, -person.num_votes, person.annotator_id))
    interval = alpha_interval(_by_group(shared.values()))
    return Diagnosis(len(rows), len(shared), alpha, interval, people)


def _by_group(images: Iterable[Sequence[Any]]) -> Iterable[list[list[str]]]:
    """What people said of each image, by prompt group."""
    found: dict[str, list[list[str]]] = defaultdict(list)
    for votes in images:
        found[votes[0].group_id].append([row.value for row in votes])
    return found.values()


def _newest(run_id: str | None, question_id: str | None) -> Any:
    wanted: list[ColumnElement[bool]] = [
        ~_labels.c.is_gold,
        _labels.c.retracted_at.is_(None),
        _labels.c.value.in_(VOTES),
    ]
    if run_id is not None:
        wanted.append(_labels.c.run_id == run_id)
    if question_id is not None:
        wanted.append(_labels.c.question_id == question_id)
    columns = (
        "image_id",
        "group_id",
        "annotator_id",
        "value",
        "latency_ms",
        "received_at",
        "source",
    )
    return (
        select(*(_labels.c[name] for name in columns), _people.c.state)
        .join(_people, _people.c.id == _labels.c.annotator_id)
        .where(*wanted)
        .order_by(_labels.c.seq.desc())
        .limit(WINDOW)
    )


def _model(shared: Mapping[str, Sequence[Any]]) -> DawidSkene | None:
    votes = [
        (row.image_id, row.annotator_id, row.value == "like")
        for of_image in shared.values()
        for row in of_image
    ]
    return dawid_skene(votes) if votes else None


def _others_mean(by_person: Mapping[str, Sequence[Any]], who: str) -> float:
    """Labels of the others on average; infinite where they are too few to go by."""
    if len(by_person) < CROWD:
        return math.inf
    others = [len(votes) for other, votes in by_person.items() if other != who]
    return sum(others) / len(others)


def _departures(rows: Sequence[Any]) -> dict[str, list[Flag]]:
    """Person to how their pace or likes depart from the others', or from their own before."""
    votes = [(row.annotator_id, _vote(row)) for row in rows]
    places: dict[str, list[int]] = defaultdict(list)
    for place, (who, _) in enumerate(votes):
        places[who].append(place)
    by_person = {who: [votes[place][1] for place in own] for who, own in places.items()}
    counts = {
        who: (sum(vote.is_like for vote in own), len(own))
        for who, own in by_person.items()
        if len(own) >= FEWEST
    }
    paces = {who: pace(by_person[who]) for who in counts}
    known = [each for each in paces.values() if each is not None]
    norm = median(known) if len(known) >= CROWD else None
    unlike = unlike_others(counts)
    found: dict[str, list[Flag]] = {}
    for who, own in by_person.items():
        recent, earlier = own[:RECENT], own[RECENT:]
        is_known = len(earlier) >= FEWEST
        departed: dict[Flag, bool] = {
            "faster-than-others": is_faster(paces.get(who), norm),
            "faster-than-before": is_known and is_faster(pace(recent), pace(earlier)),
            "likes-unlike-others": who in unlike,
            "likes-unlike-before": is_known
            and has_shifted(recent, earlier, *_others(votes, who, places[who][RECENT])),
        }
        found[who] = [name for name, is_so in departed.items() if is_so]
    return found


def _others(
    votes: Sequence[tuple[str, Vote]], who: str, start: int
) -> tuple[list[Vote], list[Vote]]:
    """What everybody else said since somebody's earlier votes end, and before; newest first."""
    parts = votes[:start], votes[start:]
    recent, earlier = ([vote for other, vote in part if other != who] for part in parts)
    return recent, earlier


def _vote(row: Any) -> Vote:
    minute = None if row.source == "import" else int(row.received_at.timestamp()) // 60
    return Vote(row.group_id, row.value == "like", minute)


def _habits(
    votes: Sequence[Any],
    model: DawidSkene | None,
    like_rate: float,
    usual: float,
    departed: Sequence[Flag],
) -> Habits:
    who = votes[0].annotator_id
    times = [row.latency_ms for row in votes if row.latency_ms is not None]
    latency = median(times) if times else None
    likes = sum(row.value == "like" for row in votes) / len(votes)
    known = model is not None and who in model.sensitivity
    told = model.informativeness(who) if model is not None and known else None
    found: dict[Flag, bool] = {
        "too-fast": latency is not None and latency < TOO_FAST_MS,
        "always-the-same": likes in (0, 1) and 0.1 < like_rate < 0.9,
        "at-random": told is not None and told < BLIND,
        "far-more": len(votes) > FAR_MORE * usual,
    }
    flags: tuple[Flag, ...] = (*(name for name, is_so in found.items() if is_so), *departed)
    enough = len(votes) >= FEWEST
    return Habits(who, votes[0].state, len(votes), likes, latency, told, flags if enough else ())
