"""Reward hacking: the trained reward rises while one that nothing is trained on falls.

Of a trained reward T and a held-out one H, over a run's evaluations so far, with best the one at
which H was highest:
    fall = H(best) - H(now)        rise = T(now) - T(best)
Raised after `hold` evaluations in a row in which both are beyond `sigmas` of their standard errors,
cleared after as many in which one of them is below `clear_sigmas`: noise raises nothing, and an
alert does not flicker. A step sees only what came before it, so what was raised stays raised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Score:
    """A mean over held-out images; higher is better."""

    mean: float
    std_error: float
    """Standard error of the mean, 0 or more."""


@dataclass(frozen=True)
class HackingRule:
    """How sure one has to be, and how often."""

    sigmas: float = 2.0
    """Standard errors that both changes must exceed."""
    clear_sigmas: float = 1.0
    """Standard errors below which one of them is over."""
    hold: int = 2
    """Evaluations in a row that it takes, to raise and to clear."""


@dataclass(frozen=True)
class HackingEpisode:
    """One alert; places in the sequence of evaluations."""

    best: int
    """Where the held-out reward had been highest when it was raised."""
    raised: int
    cleared: int | None
    """None while it lasts."""
    rise: float
    """Of the trained reward since `best`, when it was raised."""
    fall: float
    """Of the held-out reward, likewise."""


def hacking_episodes(
    trained: Sequence[Score | None], heldout: Sequence[Score | None], rule: HackingRule
) -> list[HackingEpisode]:
    """Every time that the trained reward rose at the held-out one's cost, oldest first.

    Both sequences have one entry an evaluation; where one is None the evaluation says nothing.
    """
    found: list[HackingEpisode] = []
    best: tuple[int, Score, Score] | None = None
    streak = 0
    for now, (t, h) in enumerate(zip(trained, heldout, strict=True)):
        if t is None or h is None:
            continue
        if best is None or h.mean > best[2].mean:
            best = now, t, h
        place, best_t, best_h = best
        lasts = bool(found) and found[-1].cleared is None
        sigmas = rule.clear_sigmas if lasts else rule.sigmas
        beyond = _beyond(best_t, t, sigmas) and _beyond(h, best_h, sigmas)
        streak = streak + 1 if beyond != lasts else 0
        if streak < rule.hold:
            continue
        streak = 0
        if lasts:
            found[-1] = replace(found[-1], cleared=now)
        else:
            rise, fall = t.mean - best_t.mean, best_h.mean - h.mean
            found.append(HackingEpisode(place, now, None, rise, fall))
    return found


def _beyond(low: Score, high: Score, sigmas: float) -> bool:
    """Whether `high` is above `low` by more than the standard error of their difference, times."""
    error = (low.std_error**2 + high.std_error**2) ** 0.5
    return high.mean - low.mean > sigmas * error
