"""Do people agree, and who does not: Krippendorff's alpha and Dawid-Skene, standard library only.

    alpha = 1 - (n-1) sum_u (n_u^2 - sum_c n_uc^2) / (n_u - 1) / (n^2 - sum_c n_c^2)
Both are for people who watch the labels. Neither makes a reward (labels and dashboard 2.6).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdm_core.label_posterior import SMOOTHING, logit, sigmoid


def krippendorff_alpha(units: Iterable[Iterable[Any]]) -> float | None:
    """Nominal alpha over units (images), each the values its annotators gave; None is missing.

    alpha = 1 - D_observed / D_expected: 1 is agreement, 0 chance. None where no unit has two
    values, or where all values are the same: there is no disagreement to expect.
    """
    totals: dict[Any, float] = {}
    disagreement = 0.0
    for unit in units:
        counts: dict[Any, int] = {}
        for value in unit:
            if value is not None:
                counts[value] = counts.get(value, 0) + 1
        n = sum(counts.values())
        if n < 2:
            continue
        disagreement += (n * n - sum(c * c for c in counts.values())) / (n - 1)
        for value, count in counts.items():
            totals[value] = totals.get(value, 0.0) + count
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    if expected <= 0:
        return None
    return 1 - (n - 1) * disagreement / expected


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
