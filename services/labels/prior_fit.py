"""The prior of a run's groups, fitted to its last labels: its strength k, and how to read the
automatic reward that stands in for it. Groups use a fit from their next label on.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, Group, GroupImage, Label, Run
from tdm_core.label_posterior import fit_platt, prior_without, refit_k, tally

if TYPE_CHECKING:
    from services.labels.settings import Settings

REFIT_LABELS = 500
"""New labels (of all runs) after which a run is fitted again."""


def runs_to_refit(session: Session) -> list[str]:
    """Runs with labels enough for another fit."""
    rows = session.execute(select(Run.id, Run.rate_seq, Run.prior)).all()
    return [row.id for row in rows if row.rate_seq - _fitted_at(row) >= REFIT_LABELS]


def refit(session: Session, run_id: str, settings: "Settings") -> None:
    """Fit k, and the calibration of the proxy reward if there is one, to the run's last labels."""
    run = session.get_one(Run, run_id)
    groups = [
        ([tally(votes) for votes in sample.votes], sample.scores)
        for sample in _window(session, run_id, settings)
    ]
    tallies = [image for of_group, _ in groups for image in of_group]
    scores = [score for _, of_group in groups for score in of_group]
    # Its own votes are left out of an image's prior, or they would seem to be well foretold.
    priors = [
        prior_without(of_group, place, run.like_rate)
        for of_group, _ in groups
        for place in range(len(of_group))
    ]
    fitted: dict[str, Any] = {"seq": run.rate_seq}
    if settings.proxy_reward:
        proxy = fit_platt([math.nan if x is None else x for x in scores], tallies)
        fitted |= {"proxy": settings.proxy_reward, "a": proxy.a, "b": proxy.b}
        priors = [m if x is None else proxy(x) for m, x in zip(priors, scores, strict=True)]
    run.prior = {**fitted, "k": refit_k(priors, tallies, settings.k)}
    session.flush()


@dataclass
class _Sample:
    """A group of the window: its images' votes and proxy scores, by index."""

    votes: list[list[tuple[str, float]]]
    scores: list[float | None]


def _window(session: Session, run_id: str, settings: "Settings") -> list[_Sample]:
    rows = session.execute(
        select(
            Label.group_id,
            Label.value,
            vote_weight.label("weight"),
            GroupImage.index.label("place"),
            Group.num_images,
            Group.auto_rewards,
        )
        .join(Annotator, Annotator.id == Label.annotator_id)
        .join(GroupImage, GroupImage.id == Label.image_id)
        .join(Group, Group.id == Label.group_id)
        .where(Label.run_id == run_id, ~Label.is_gold, Label.retracted_at.is_(None))
        .order_by(Label.seq.desc())
        .limit(settings.base_rate_window)
    )
    samples: dict[str, _Sample] = {}
    for row in rows:
        if row.group_id not in samples:
            empty: list[float | None] = [None] * row.num_images
            scores = row.auto_rewards.get(settings.proxy_reward, empty)
            samples[row.group_id] = _Sample([[] for _ in range(row.num_images)], scores)
        samples[row.group_id].votes[row.place].append((row.value, row.weight))
    return list(samples.values())


def _fitted_at(row: Any) -> int:
    return (row.prior or {}).get("seq", 0)
