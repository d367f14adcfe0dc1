"""Do people agree, and who does not: Krippendorff's alpha and Dawid-Skene, standard library only.

    alpha = 1 - (n-1) sum_u (n_u^2 - sum_c n_uc^2) / (n_u - 1) / (n^2 - sum_c n_c^2)
Its interval is by the bootstrap over prompt groups: images of one share the prompt and the people.
Both are for people who watch the labels. Neither makes a reward (labels and dashboard 2.6).
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from tdm_core.clustered_share import FEW
from tdm_core.label_posterior import SMOOTHING, logit, sigmoid

NUM_DRAWS = 1000
"""Of the bootstrap: the ends of a 95% interval are the 25th draw from either side."""


def krippendorff_alpha(units: Iterable[Iterable[Any]]) -> float | None:
    """Nominal alpha over units (images), each the values its annotators gave; None is missing.

    alpha = 1 - D_observed / D_expected: 1 is agreement, 0 chance. None where no unit has two
    values, or where all values are the same: there is no disagreement to expect.
    """
    disagreement, counts = _tally(units)
    return _alpha(disagreement, counts.values())


def alpha_interval(
    clusters: Iterable[Iterable[Iterable[Any]]], num_draws: int = NUM_DRAWS
) -> tuple[float, float] | None:
    """Alpha's 95% interval, low and high, where clusters (prompt groups) of units are drawn anew.

    None where it would claim more than is known: fewer than `FEW` clusters with a unit of two
    values, no unit that disagrees, or hardly ever another value. The same clusters give the same
    interval, in any order.
    """
    tallies = [tally for units in clusters if (tally := _tally(units))[1]]
    values = sorted({value for _, counts in tallies for value in counts}, key=repr)
    rows = sorted((disagreement, *(counts[v] for v in values)) for disagreement, counts in tallies)
    if len(rows) < FEW or not any(disagreement for disagreement, *_ in rows):
        return None
    rng = random.Random("krippendorff_alpha")
    drawn: list[float] = []
    for _ in range(num_draws):
        times = Counter(rng.choices(rows, k=len(rows)))
        disagreement, *totals = (
            sum(map(mul, column, times.values())) for column in zip(*times, strict=True)
        )
        if (alpha := _alpha(disagreement, totals)) is not None:
            drawn.append(alpha)
    tail = num_draws // 40
    if len(drawn) < num_draws - 2 * tail:
        return None
    drawn.sort()
    return drawn[tail], drawn[-1 - tail]


def _tally(units: Iterable[Iterable[Any]]) -> tuple[float, Counter[Any]]:
    """Disagreement of the units that have two values or more, and how often each value is there."""
    disagreement, totals = 0.0, Counter[Any]()
    for unit in units:
        counts = Counter(value for value in unit if value is not None)
        n = counts.total()
        if n > 1:
            disagreement += (n * n - sum(c * c for c in counts.values())) / (n - 1)
            totals += counts
    return disagreement, totals


def _alpha(disagreement: float, counts: Iterable[float]) -> float | None:
    """From what all units add up to; None where no disagreement is expected."""
    counts = list(counts)
    n = sum(counts)
    expected = n * n - sum(count * count for count in counts)
    return None if expected <= 0 else 1 - (n - 1) * disagreement / expected


@dataclass(frozen=True)
class DawidSkene:
    """One true answer an image and a two-coin error model a person: for flagging people only."""

    prevalence: float
    """Share of images whose answer is like."""
    probability: dict[Any, float]
    """Image to the probability that its answer is like."""
    sensitivity: dict[Any, float]
    """Person to P(votes like | like)."""
    specificity: dict[Any, float]
    """Person to P(votes dislike | dislike)."""
    num_iterations: int
    """Of the EM algorithm."""

    def informativeness(self, annotator: Any) -> float:
        """Youden's J, sensitivity + specificity - 1: 0 is a coin that ignores the image."""
        return self.sensitivity[annotator] + self.specificity[annotator] - 1


def dawid_skene(
    votes: Iterable[tuple[Any, Any, bool]], max_iterations: int = 100, tolerance: float = 1e-6
) -> DawidSkene:
    """Fit (image, annotator, liked) votes by smoothed EM, starting from the majority.

    It assumes one true answer and so polarises honest disagreement of taste: a diagnostic, not a
    reward. ValueError without votes.
    """
    by_image: dict[Any, list[tuple[Any, bool]]] = {}
    for image, annotator, liked in votes:
        by_image.setdefault(image, []).append((annotator, liked))
    if not by_image:
        raise ValueError("no votes; Dawid-Skene needs at least one")
    probability = {
        image: (sum(liked for _, liked in seen) + SMOOTHING) / (len(seen) + 2 * SMOOTHING)
        for image, seen in by_image.items()
    }
    num_iterations, moved = 0, math.inf
    while num_iterations < max_iterations and moved >= tolerance:
        num_iterations += 1
        prevalence, sensitivity, specificity = _maximise(by_image, probability)
        previous = probability
        probability = {
            image: _expect(seen, prevalence, sensitivity, specificity)
            for image, seen in by_image.items()
        }
        moved = max(abs(probability[image] - previous[image]) for image in probability)
    prevalence, sensitivity, specificity = _maximise(by_image, probability)
    return DawidSkene(prevalence, probability, sensitivity, specificity, num_iterations)


def _maximise(
    by_image: Mapping[Any, Sequence[tuple[Any, bool]]], probability: Mapping[Any, float]
) -> tuple[float, dict[Any, float], dict[Any, float]]:
    """Rates given how likely each answer is, each from two pseudo-votes of one half."""
    hits: dict[Any, list[float]] = {}
    for image, seen in by_image.items():
        for annotator, liked in seen:
            row = hits.setdefault(annotator, [SMOOTHING, 2 * SMOOTHING, SMOOTHING, 2 * SMOOTHING])
            p = probability[image]
            row[0] += p * liked
            row[1] += p
            row[2] += (1 - p) * (not liked)
            row[3] += 1 - p
    prevalence = (sum(probability.values()) + SMOOTHING) / (len(probability) + 2 * SMOOTHING)
    sensitivity = {annotator: row[0] / row[1] for annotator, row in hits.items()}
    specificity = {annotator: row[2] / row[3] for annotator, row in hits.items()}
    return prevalence, sensitivity, specificity


def _expect(
    seen: Sequence[tuple[Any, bool]],
    prevalence: float,
    sensitivity: Mapping[Any, float],
    specificity: Mapping[Any, float],
) -> float:
    """P(like | votes of one image)."""
    odds = logit(prevalence)
    for annotator, liked in seen:
        yes, no = sensitivity[annotator], specificity[annotator]
        odds += math.log(yes / (1 - no)) if liked else math.log((1 - yes) / no)
    return sigmoid(odds)
