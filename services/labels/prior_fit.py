"""The prior of a run's groups, fitted to its last labels: its strength k, and how to read the
automatic reward that stands in for it. Groups use a fit from their next label on.

It takes a while, so it is made on a snapshot beside the writer, which no label waits for.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, Group, GroupImage, Label, Run, core
from tdm_core.label_posterior import fit_platt, prior_without, refit_k, tally

if TYPE_CHECKING:
    from services.labels.settings import Settings

REFIT_LABELS = 500
"""New labels (of all runs) after which a run is fitted again."""

_annotators, _groups, _images, _labels, _runs = (
    core(mapped) for mapped in (Annotator, Group, GroupImage, Label, Run)
)


def runs_to_refit(session: Session) -> list[str]:
    """Runs with labels enough for another fit."""
    rows = session.execute(select(_runs.c.id, _runs.c.rate_seq, _runs.c.prior)).all()
    return [row.id for row in rows if row.rate_seq - _fitted_at(row) >= REFIT_LABELS]


def keep(session: Session, run_id: str, prior: dict[str, Any]) -> None:
    """Write a fit down."""
    session.execute(update(_runs).where(_runs.c.id == run_id).values(prior=prior))


def fit(session: Session, run_id: str, settings: "Settings") -> dict[str, Any]:
    """k, and the calibration of the proxy reward if there is one, of the run's last labels."""
    query = select(_runs.c.like_rate, _runs.c.rate_seq).where(_runs.c.id == run_id)
    run = session.execute(query).one()
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
    return {**fitted, "k": refit_k(priors, tallies, settings.k)}


@dataclass
class _Sample:
    """A group of the window: its images' votes and proxy scores, by index."""

    votes: list[list[tuple[str, float]]]
    scores: list[float | None]


def _window(session: Session, run_id: str, settings: "Settings") -> list[_Sample]:
    votes = session.execute(
        select(
            _labels.c.group_id,
            _labels.c.value,
            vote_weight.label("weight"),
            _images.c.index.label("place"),
        )
        .join(_annotators, _annotators.c.id == _labels.c.annotator_id)
        .join(_images, _images.c.id == _labels.c.image_id)
        .where(_labels.c.run_id == run_id, ~_labels.c.is_gold, _labels.c.retracted_at.is_(None))
        .order_by(_labels.c.seq.desc())
        .limit(settings.base_rate_window)
    ).all()
    ids = {vote.group_id for vote in votes}
    query = select(_groups.c.id, _groups.c.num_images, _groups.c.auto_rewards)
    samples: dict[str, _Sample] = {}
    for group in session.execute(query.where(_groups.c.id.in_(ids)).order_by(_groups.c.id)):
        empty: list[float | None] = [None] * group.num_images
        scores = group.auto_rewards.get(settings.proxy_reward, empty)
        samples[group.id] = _Sample([[] for _ in range(group.num_images)], scores)
    for group_id, value, weight, place in votes:
        samples[group_id].votes[place].append((value, weight))
    return list(samples.values())


def _fitted_at(row: Any) -> int:
    return (row.prior or {}).get("seq", 0)
