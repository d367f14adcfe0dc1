"""How people label: who agrees with whom, and whom an admin should look at.

Over the newest labels (`WINDOW`), gold left out. A flag is a reason to look, never a sentence:
taste differs honestly. Nothing here makes a reward.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Annotator, Label, core
from tdm_core.label_agreement import DawidSkene, dawid_skene, krippendorff_alpha

WINDOW = 2000
"""Newest labels that are looked at."""
FEWEST = 20
"""Likes and dislikes below which nothing is said of a person."""
TOO_FAST_MS = 300
"""Median time below which nobody can have looked."""
BLIND = 0.1
"""Youden's J below which a person's votes do not depend on the image."""
FAR_MORE = 5
"""Times the median person's labels; with so many people at least."""
VOTES = ("like", "dislike")

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
    flags: tuple[str, ...]
    """too-fast, always-the-same, at-random, far-more."""


@dataclass(frozen=True)
class Diagnosis:
    """What the newest labels tell."""

    num_votes: int
    num_shared_images: int
    """Images that more than one person judged: what agreement is of."""
    alpha: float | None
    """Krippendorff's; None where there is no disagreement to expect."""
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
    usual = median(map(len, by_person.values())) if len(by_person) >= FAR_MORE else float("inf")
    like_rate = sum(row.value == "like" for row in rows) / max(len(rows), 1)
    people = [_habits(votes, model, like_rate, usual) for votes in by_person.values()]
    alpha = krippendorff_alpha([row.value for row in votes] for votes in by_image.values())
    people.sort(key=lambda person: (not person.flags, -person.num_votes, person.annotator_id))
    return Diagnosis(len(rows), len(shared), alpha, people)


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
    columns = ("image_id", "annotator_id", "value", "latency_ms")
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


def _habits(
    votes: Sequence[Any], model: DawidSkene | None, like_rate: float, usual: float
) -> Habits:
    who = votes[0].annotator_id
    times = [row.latency_ms for row in votes if row.latency_ms is not None]
    latency = median(times) if times else None
    likes = sum(row.value == "like" for row in votes) / len(votes)
    known = model is not None and who in model.sensitivity
    told = model.informativeness(who) if model is not None and known else None
    found = {
        "too-fast": latency is not None and latency < TOO_FAST_MS,
        "always-the-same": likes in (0, 1) and 0.1 < like_rate < 0.9,
        "at-random": told is not None and told < BLIND,
        "far-more": len(votes) > FAR_MORE * usual,
    }
    flags = tuple(name for name, is_so in found.items() if is_so)
    enough = len(votes) >= FEWEST
    return Habits(who, votes[0].state, len(votes), likes, latency, told, flags if enough else ())
