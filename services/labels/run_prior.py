"""What a run's labels say before a group has any: its base rate m0, and the prior's strength.

m0 is counted again once the run has labels enough to move it, not at every label: the first fifty
each count at once, later ones in steps of a fiftieth of the window. The same
count finds who gave more of those labels than one person may count for (`influence_cap`). k and the
proxy reward's calibration are fitted by `prior_fit`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, Label, Run, core
from tdm_core.label_posterior import PRIOR_STRENGTH, VOTES, Platt, base_rate, influence

if TYPE_CHECKING:
    from services.labels.settings import Settings

STEPS = 50
"""Parts of the window after which it is counted again."""

_annotators, _labels, _runs = (core(mapped) for mapped in (Annotator, Label, Run))


@dataclass(frozen=True)
class RunPrior:
    """What the posterior of the run's groups starts from."""

    m0: float
    k: float = PRIOR_STRENGTH
    proxy: Platt | None = None
    """Calibrates the automatic reward that stands in for the group's own prior."""
    influence: Mapping[str, float] = field(default_factory=dict)
    """Annotator to the factor of their votes' weight, of those who would count for too much."""

    def priors(self, scores: Sequence[float | None] | None) -> list[float] | None:
        """m_i of images with these proxy scores; None where the group's own prior is to be used."""
        if self.proxy is None or not scores or any(score is None for score in scores):
            return None
        return [self.proxy(score) for score in scores if score is not None]


def run_prior(session: Session, row: Any, newest_seq: int, settings: "Settings") -> RunPrior:
    """The prior of a loaded group's run, counted again if labels up to `newest_seq` may move it."""
    m0, factors = row.like_rate, row.influence or {}
    if newest_seq - row.rate_seq >= max(1, row.rate_labels // STEPS):
        m0, factors = recount(session, row.run_id, newest_seq, settings)
    fitted = row.prior or {}
    of_proxy = settings.proxy_reward and fitted.get("proxy") == settings.proxy_reward
    proxy = Platt(fitted["a"], fitted["b"]) if of_proxy else None
    capped = factors if settings.influence_cap is not None else {}
    return RunPrior(m0, fitted.get("k", settings.k), proxy, capped)


def recount(
    session: Session, run_id: str, newest_seq: int, settings: "Settings"
) -> tuple[float, dict[str, float]]:
    """Count m0 and people's influence over the run's last labels, and write them down."""
    window = (
        select(_labels.c.value, _labels.c.annotator_id, vote_weight.label("weight"))
        .join(_annotators, _annotators.c.id == _labels.c.annotator_id)
        .where(_labels.c.run_id == run_id, ~_labels.c.is_gold, _labels.c.retracted_at.is_(None))
        .order_by(_labels.c.seq.desc())
        .limit(settings.base_rate_window)
        .subquery()
    )
    kinds = (window.c.value, window.c.annotator_id)
    counted = select(*kinds, func.sum(window.c.weight), func.count()).group_by(*kinds)
    rows = session.execute(counted).all()
    factors: dict[str, float] = {}
    if settings.influence_cap is not None:
        factors = influence(_weights(rows), settings.influence_cap)
    m0 = base_rate((value, weight * factors.get(who, 1.0)) for value, who, weight, _ in rows)
    counts = {"rate_labels": sum(count for *_, count in rows), "rate_seq": newest_seq}
    found = {"like_rate": m0, "influence": factors or None, **counts}
    session.execute(update(_runs).where(_runs.c.id == run_id).values(found))
    return m0, factors


def _weights(rows: Sequence[Any]) -> dict[str, float]:
    """Person to the weight of all their votes."""
    weights: dict[str, float] = defaultdict(float)
    for value, who, weight, _ in rows:
        vote = VOTES[value]
        weights[who] += weight * (vote[1] if vote else 0.0)
    return weights
