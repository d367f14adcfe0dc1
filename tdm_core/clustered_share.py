"""How often, and how sure that is, where observations come in clusters; standard library only.

What people say of the images of one group is about one prompt and mostly one person's: eight such
votes tell less than eight of eight groups. With x_g hits among n_g observations of cluster g:

    p = sum x_g / sum n_g,   V = C/(C-1) sum (x_g - p n_g)^2 / (sum n_g)^2        (ratio estimator)
    n_eff = p (1-p) / V  (z/t)^2, at most sum n_g; the interval is Wilson's at n_eff
(Korn and Graubard 1998, with Wilson's interval). Where V cannot be told, since clusters are few or
all the same, a cluster counts as one observation: n_eff = (sum n_g)^2 / sum n_g^2.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Z = 1.959964
"""Two-sided 95% of the normal distribution."""
ROUNDING = 1e-9
"""Of hits that were summed up in another order than all observations."""
FEW = 10
"""Clusters below which their spread tells nothing of V."""


@dataclass(frozen=True)
class Share:
    """A share and its 95% interval."""

    value: float
    low: float
    high: float
    num: float
    """Observations."""
    num_clusters: int
    """Clusters that have any."""


def share_of(clusters: Iterable[tuple[float, float]]) -> Share | None:
    """The share of hits in (hits, observations) pairs, one a cluster; None without observations."""
    told = [(hits, num) for hits, num in clusters if num > 0]
    for hits, num in told:
        if not 0 <= hits <= num * (1 + ROUNDING):
            raise ValueError(f"{hits} hits of {num} observations; allowed are 0 to {num}")
    total = math.fsum(num for _, num in told)
    if not total:
        return None
    p = min(math.fsum(hits for hits, _ in told) / total, 1.0)
    low, high = _wilson(p, _effective(told, p, total))
    return Share(p, low, high, total, len(told))


def _effective(clusters: list[tuple[float, float]], p: float, total: float) -> float:
    """Independent observations that would tell as much."""
    count = len(clusters)
    squares = math.fsum((hits - p * num) ** 2 for hits, num in clusters)
    if count < FEW or squares <= 1e-12 * total:
        return total**2 / math.fsum(num**2 for _, num in clusters)
    variance = count / (count - 1) * squares / total**2
    return min(total, p * (1 - p) / variance * (Z / _student(count - 1)) ** 2)


def _student(freedom: int) -> float:
    """Student's t at the probability of Z, by Cornish and Fisher; within 0.3% from 9 degrees on."""
    first = (Z**3 + Z) / (4 * freedom)
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    return Z + first + second


def _wilson(p: float, n: float) -> tuple[float, float]:
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
