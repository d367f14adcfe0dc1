"""From people's votes to a reward: the label formulas, in the standard library alone.

    y: like 1, dislike 0, unsure 1/2 (weight 1/2), skip none;  w: the weight, 0 behind a shut gate
    prior      m_g  = (k_g m0 + sum_g w y) / (k_g + sum_g w),  or  m_i = sigmoid(a + b x_i)
    posterior  mu_i = (k m + sum_j w y) / (k + n_i),  n_i = sum_j w,  rho_i = n_i / (n_i + k)
               var_i = mu_i (1 - mu_i) / (k + n_i + 1)
    advantage  A_i  = clip((mu_i - mean_g mu) / max(sigma, 0.1), -5, 5), re-centred;  sum_i A_i = 0
A missing reward is None and stays None; it is never 0. The label service imports this file, so it
imports no torch.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

VOTES: Mapping[str, tuple[float, float] | None] = {
    "like": (1.0, 1.0),
    "dislike": (0.0, 1.0),
    "unsure": (0.5, 0.5),
    "skip": None,
}
"""Value on the wire to (y, weight); None is no vote."""
PRIOR_STRENGTH = 2.0
"""k and k_g before anything is known of them, in votes."""
MIN_K, MAX_K = 0.05, 200.0
"""Where a refitted k stays: past these, labels would count for all or for nothing."""
MIN_SPREAD = 1e-9
"""Rewards of a group that differ by less are equal."""
MIN_INFLUENCE_PEOPLE = 5
"""People who vote before anybody's share of the votes is capped: among few, most is nobody's."""
SMOOTHING = 1.0
"""Votes of one half that every rate of people starts from, so that none is exactly 0 or 1."""


@dataclass(frozen=True)
class Tally:
    """The votes of one image."""

    likes: float = 0.0
    """sum_j w_j y_ij."""
    weight: float = 0.0
    """n_i = sum_j w_j."""
    num_labels: int = 0
    """Votes that count (weight above 0)."""


def tally(votes: Iterable[tuple[str, float]]) -> Tally:
    """Sum up (value, gate weight) pairs of one image; ValueError names an unknown value."""
    likes = weight = 0.0
    count = 0
    for value, gate in votes:
        if value not in VOTES:
            raise ValueError(f"vote {value!r}: allowed are {', '.join(VOTES)}")
        if not (math.isfinite(gate) and gate >= 0):
            raise ValueError(f"gate weight {gate}: allowed is a finite number, 0 or more")
        vote = VOTES[value]
        if vote is not None and gate > 0:
            likes += gate * vote[1] * vote[0]
            weight += gate * vote[1]
            count += 1
    return Tally(likes, weight, count)


def base_rate(votes: Iterable[tuple[str, float]]) -> float:
    """m0, the like rate of these (value, gate weight) pairs: a run's last 2000 labels.

    Starts from two votes of one half, which the first labels outvote: m0 = 0 or 1 would leave the
    posterior of the first groups nothing to learn. In (0, 1).
    """
    total = tally(votes)
    return (total.likes + SMOOTHING) / (total.weight + 2 * SMOOTHING)


def gold_gate(
    num_correct: int, num_answered: int, min_answers: int = 10, min_accuracy: float = 0.8
) -> float:
    """w_j: 0 for a person whose gold accuracy is below the bar after enough answers, else 1."""
    if not 0 <= num_correct <= num_answered:
        raise ValueError(f"{num_correct} correct of {num_answered} gold answers is impossible")
    shut = num_answered >= min_answers and num_correct / num_answered < min_accuracy
    return 0.0 if shut else 1.0


def influence(weights: Mapping[str, float], cap: float) -> dict[str, float]:
    """Factors that leave nobody more than the share `cap` of all votes' weight; people within it
    are not named.

    The m heaviest are cut to L = cap R / (1 - m cap), R the others' weight: each has the share cap
    of what is left. With fewer than `MIN_INFLUENCE_PEOPLE` who vote nobody is cut, and a cap below
    an even share is an even share. `weights` are sums of votes' weights by person, 0 or more.
    """
    if not 0 < cap <= 1:
        raise ValueError(f"influence cap {cap}: allowed is a share above 0, at most 1")
    heaviest = sorted((weight for weight in weights.values() if weight > 0), reverse=True)
    if len(heaviest) < MIN_INFLUENCE_PEOPLE:
        return {}
    cap = max(cap, 1 / len(heaviest))
    rest, limit = math.fsum(heaviest), math.inf
    for num_cut, weight in enumerate(heaviest):
        limit = cap * rest / (1 - num_cut * cap)
        if weight <= limit + MIN_SPREAD or num_cut == len(heaviest) - 1:
            break
        rest -= weight
    return {who: limit / weight for who, weight in weights.items() if weight > limit + MIN_SPREAD}


@dataclass(frozen=True)
class GroupPosterior:
    """What the votes say of a prompt group; lists have an entry an image."""

    m0: float
    """Base rate that the prior started from."""
    prior: list[float]
    """m, the same in every entry unless an automatic reward gave it."""
    mu: list[float]
    """Posterior mean like rate: the human reward."""
    likes: list[float]
    """Weight of the likes among them, an unsure vote being half a like."""
    n: list[float]
    """Weight of the votes."""
    rho: list[float]
    """Share of the votes in mu, n / (n + k); 0 for an unlabelled image."""
    var: list[float]
    """Posterior variance."""
    coverage: float
    """Share of images with at least one vote that counts."""
    contrast: bool
    """Whether mu differs within the group: without, the group teaches nothing."""
    num_labels: int
    """Votes that count."""

    def as_json(self) -> dict[str, Any]:
        """Plain data, as the label service stores it."""
        return asdict(self)


def group_prior(tallies: Sequence[Tally], m0: float, k_g: float = PRIOR_STRENGTH) -> float:
    """m_g: the base rate, moved by all votes of the group."""
    weight = sum(image.weight for image in tallies)
    return (k_g * m0 + sum(image.likes for image in tallies)) / (k_g + weight)


def prior_without(
    tallies: Sequence[Tally], index: int, m0: float, k_g: float = PRIOR_STRENGTH
) -> float:
    """m_g from the other images' votes: what k is refitted against, since m_g has seen its own."""
    return group_prior([t for i, t in enumerate(tallies) if i != index], m0, k_g)


def group_posterior(
    tallies: Sequence[Tally],
    m0: float,
    k: float = PRIOR_STRENGTH,
    k_g: float = PRIOR_STRENGTH,
    priors: Sequence[float] | None = None,
) -> GroupPosterior:
    """The posterior of every image; `priors` (an entry an image) replaces the group's own."""
    if not tallies:
        raise ValueError("a group has at least one image; got none")
    _require_rate("m0", m0)
    _require_strength(k, k_g)
    if priors is None:
        priors = [group_prior(tallies, m0, k_g)] * len(tallies)
    if len(priors) != len(tallies):
        raise ValueError(f"{len(priors)} priors for {len(tallies)} images; give one an image")
    for prior in priors:
        _require_rate("prior", prior)
    n = [image.weight for image in tallies]
    mu = [
        (k * m + image.likes) / (k + image.weight) for m, image in zip(priors, tallies, strict=True)
    ]
    return GroupPosterior(
        m0=m0,
        prior=list(priors),
        mu=mu,
        likes=[image.likes for image in tallies],
        n=n,
        rho=[weight / (weight + k) for weight in n],
        var=[m * (1 - m) / (k + weight + 1) for m, weight in zip(mu, n, strict=True)],
        coverage=sum(weight > 0 for weight in n) / len(n),
        contrast=max(mu) - min(mu) > MIN_SPREAD,
        num_labels=sum(image.num_labels for image in tallies),
    )


def no_contrast_probability(mu: Sequence[float]) -> float:
    """P0 = prod mu_i + prod (1 - mu_i): the chance that one vote an image finds no difference."""
    return math.prod(mu) + math.prod(1 - m for m in mu)


def labelling_priority(mu: Sequence[float], staleness: float) -> float:
    """(1 - P0) 2^(-s/4): which of the groups that nobody has started is labelled next."""
    return (1 - no_contrast_probability(mu)) * 2 ** (-max(staleness, 0.0) / 4)


@dataclass(frozen=True)
class Platt:
    """m_i = sigmoid(a + b x_i)."""

    a: float
    b: float

    def __call__(self, score: float) -> float:
        """The prior like rate of an image that an automatic reward gave `score`."""
        return min(max(sigmoid(self.a + self.b * score), 1e-6), 1 - 1e-6)


def fit_platt(scores: Sequence[float], tallies: Sequence[Tally], iterations: int = 50) -> Platt:
    """Fit the automatic reward to the votes by logistic regression; images without votes count 0.

    Platt's smoothed targets keep the slope finite where the scores separate likes from dislikes.
    Scores without spread, or no votes, give b = 0 and the base rate.
    """
    rows = [
        (score, image.likes, image.weight - image.likes)
        for score, image in zip(scores, tallies, strict=True)
        if image.weight > 0 and math.isfinite(score)
    ]
    likes, dislikes = (sum(row[i] for row in rows) for i in (1, 2))
    total = likes + dislikes
    flat = Platt(logit((likes + SMOOTHING) / (total + 2 * SMOOTHING)), 0.0)
    if total == 0:
        return flat
    mean = sum(x * (s + f) for x, s, f in rows) / total
    spread = math.sqrt(sum((x - mean) ** 2 * (s + f) for x, s, f in rows) / total)
    if spread <= MIN_SPREAD * max(abs(mean), 1.0):
        return flat
    high, low = (likes + 1) / (likes + 2), 1 / (dislikes + 2)
    # Each row as (standardised score, target mass, weight).
    data = [((x - mean) / spread, s * high + f * low, s + f) for x, s, f in rows]
    a, b = _newton(data, flat.a, iterations)
    return Platt(a - b * mean / spread, b / spread)


def _newton(
    data: Sequence[tuple[float, float, float]], a: float, iterations: int
) -> tuple[float, float]:
    """Minimise the weighted cross entropy in (a, b) from (a, 0), halving steps that overshoot."""
    b, value = 0.0, _cross_entropy(data, a, 0.0)
    for _ in range(iterations):
        ga = gb = haa = hab = hbb = 0.0
        for x, mass, weight in data:
            p = sigmoid(a + b * x)
            error, curve = weight * p - mass, weight * p * (1 - p)
            ga, gb = ga + error, gb + error * x
            haa, hab, hbb = haa + curve, hab + curve * x, hbb + curve * x * x
        determinant = haa * hbb - hab * hab
        if determinant <= 0 or math.hypot(ga, gb) < 1e-10 * len(data):
            break
        da = (hbb * ga - hab * gb) / determinant
        db = (haa * gb - hab * ga) / determinant
        size = 1.0
        while size > 1e-6 and _cross_entropy(data, a - size * da, b - size * db) > value:
            size /= 2
        a, b = a - size * da, b - size * db
        value = _cross_entropy(data, a, b)
    return a, b


def _cross_entropy(data: Sequence[tuple[float, float, float]], a: float, b: float) -> float:
    """-sum (mass log p + (weight - mass) log(1 - p)), written so that no logarithm is of 0."""
    return sum(weight * softplus(a + b * x) - mass * (a + b * x) for x, mass, weight in data)


def k_from_rates(priors: Sequence[float], rates: Sequence[float]) -> float:
    """k = E[m (1-m)] / E[(p-m)^2] - 1, where the true like rates p are known (a simulation)."""
    spread = sum((p - m) ** 2 for m, p in zip(priors, rates, strict=True))
    binary = sum(m * (1 - m) for m in priors)
    return _bounded(binary / spread - 1 if spread > 0 else math.inf)


def k_from_votes(priors: Sequence[float], tallies: Sequence[Tally]) -> float | None:
    """The moment form from votes: what their own noise explains of E[(y - m)^2] is taken out.

    E[(ybar - m)^2] = m (1-m) (1 + (n-1) r) / n with r = 1 / (k+1). Only images with more than one
    vote tell; None where there is none.
    """
    noise = told = excess = 0.0
    for m, image in zip(priors, tallies, strict=True):
        n = image.weight
        if n > 1:
            noise = m * (1 - m) / n
            excess += (image.likes / n - m) ** 2 - noise
            told += noise * (n - 1)
    if told <= 0:
        return None
    return _bounded(told / excess - 1 if excess > 0 else math.inf)


def refit_k(
    priors: Sequence[float], tallies: Sequence[Tally], fallback: float = PRIOR_STRENGTH
) -> float:
    """k of largest beta-binomial likelihood, in [MIN_K, MAX_K]; `fallback` where none can be told.

    One vote an image says nothing of k, whatever it is, so overlap is what makes this possible.
    Images with one vote are left out: they would only add rounding.
    """
    rows = [
        (min(max(m, 1e-6), 1 - 1e-6), image.likes, image.weight - image.likes)
        for m, image in zip(priors, tallies, strict=True)
        if image.weight > 1
    ]
    if not rows:
        return fallback
    return math.exp(
        _lowest(
            lambda log_k: -sum(_beta_binomial(math.exp(log_k), *row) for row in rows),
            math.log(MIN_K),
            math.log(MAX_K),
        )
    )


def _beta_binomial(k: float, m: float, likes: float, dislikes: float) -> float:
    """Log likelihood of the votes under Beta(k m, k (1-m)), up to a constant."""
    a, b = k * m, k * (1 - m)
    return _log_beta(a + likes, b + dislikes) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one valley is lowest, by golden section, to 1e-4."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


class RollingStd:
    """Std of group-centred rewards over the last groups, floored."""

    def __init__(self, num_groups: int = 64, floor: float = 0.1) -> None:
        self.floor = floor
        self._window: deque[tuple[float, int]] = deque(maxlen=num_groups)

    def add(self, rewards: Sequence[float | None]) -> None:
        """Take in one group; with fewer than two rewards it has no spread to tell."""
        present = _present(rewards)
        if len(present) >= 2:
            mean = sum(present) / len(present)
            self._window.append((sum((r - mean) ** 2 for r in present), len(present)))

    def std(self) -> float:
        """At least the floor."""
        count = sum(count for _, count in self._window)
        squares = sum(squares for squares, _ in self._window)
        return max(math.sqrt(squares / count) if count else 0.0, self.floor)


def advantages(
    rewards: Sequence[float | None], std: float, clip: float = 5.0
) -> list[float | None]:
    """Zero-sum advantages of one group; None stays None and enters nothing.

    A group with fewer than two rewards has none to prefer: its advantage is 0.
    """
    present = _present(rewards)
    if len(present) < 2 or max(present) - min(present) <= MIN_SPREAD:
        return [None if reward is None else 0.0 for reward in rewards]
    mean = sum(present) / len(present)
    clipped = [
        None if reward is None else min(max((reward - mean) / std, -clip), clip)
        for reward in rewards
    ]
    shift = sum(a for a in clipped if a is not None) / len(present)
    return [None if a is None else a - shift for a in clipped]


def _present(rewards: Sequence[float | None]) -> list[float]:
    present = [reward for reward in rewards if reward is not None]
    for reward in present:
        if not math.isfinite(reward):
            raise ValueError(f"reward {reward}: allowed is a finite number, or None for missing")
    return present


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    power = math.exp(x)
    return power / (1 + power)


def logit(p: float) -> float:
    """log(p / (1-p)), p in (0, 1)."""
    return math.log(p / (1 - p))


def softplus(x: float) -> float:
    """log(1 + e^x), without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _bounded(k: float) -> float:
    return min(max(k, MIN_K), MAX_K)


def _require_rate(name: str, rate: float) -> None:
    if not (0 <= rate <= 1):  # NaN fails this too
        raise ValueError(f"{name}={rate}: a like rate is between 0 and 1")


def _require_strength(k: float, k_g: float) -> None:
    if not (math.isfinite(k) and k > 0 and math.isfinite(k_g) and k_g > 0):
        raise ValueError(f"k={k}, k_g={k_g}: both are positive numbers of votes; 2 is the start")
