"""Do other judges agree with people about the same images? Standard library only.

    AUC = P(a liked image scores higher than a disliked one of its group), equal scores count half
Within groups alone: images of a group share the prompt, and what a surrogate makes of them shares
the noise too, so across groups nothing compares. A group is one cluster of every share. An image
without votes, or with as many for as against it, is neither liked nor disliked. What few labels
cannot tell is None or a bin less, and never a number.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tdm_core.clustered_share import Share, share_of

MIN_GROUPS = 10
"""Groups with a liked and a disliked image below which there is no AUC."""
MIN_VOTES = 10.0
"""Votes of a bin, at least."""
NUM_BINS = 8

Score = float | None


@dataclass(frozen=True)
class Voted:
    """One image that people were asked about."""

    likes: float
    """Weight of the likes among its votes."""
    votes: float
    """Weight of all of them; 0 where nobody has judged it."""
    score: Score
    """Another judge's; None where it has none."""


@dataclass(frozen=True)
class Bin:
    """Images of about the same score, or groups of about the same version."""

    low: float
    high: float
    like_rate: Share


@dataclass(frozen=True)
class Agreement:
    """How one judge agrees with people."""

    auc: Share | None
    """1 is always with them, 0.5 chance; None where fewer than `MIN_GROUPS` groups tell."""
    num_groups: int
    """Groups that tell: with a liked and a disliked image that the judge scored."""
    bins: list[Bin]
    """Like rate by score, lowest first: a judge who agrees makes it rise."""


def agreement(groups: Sequence[Sequence[Voted]]) -> Agreement:
    """How a judge agrees with people about the images of these groups."""
    pairs = [_pairs(group) for group in groups]
    num_groups = sum(num > 0 for _, num in pairs)
    auc = share_of(pairs) if num_groups >= MIN_GROUPS else None
    items = [
        (image.score, place, image)
        for place, group in enumerate(groups)
        for image in group
        if image.score is not None and image.votes > 0
    ]
    return Agreement(auc, num_groups, like_rates(items))


def like_rates(items: Iterable[tuple[float, int, Voted]]) -> list[Bin]:
    """Like rates of (key, group, image) by bins of about as many votes each, lowest key first.

    Equal keys share a bin, and no bin has fewer than `MIN_VOTES` votes; none where there are fewer.
    """
    ordered = sorted(items, key=_key)
    least = max(MIN_VOTES, sum(image.votes for *_, image in ordered) / NUM_BINS) - 1e-9
    bins: list[list[tuple[float, int, Voted]]] = []
    filling: list[tuple[float, int, Voted]] = []
    for _, same in groupby(ordered, key=_key):
        filling += same
        if sum(image.votes for *_, image in filling) >= least:
            bins.append(filling)
            filling = []
    if bins:
        bins[-1] += filling
    return [_bin(each) for each in bins]


def places(scores: Sequence[Score]) -> list[Score]:
    """Each score's place in its group, 0 the lowest and 1 the highest, the middle of equal ones;
    None where there is no other. For scores that compare within a group alone."""
    known = [score for score in scores if score is not None]
    if len(known) < 2:
        return [None] * len(scores)

    def place(score: float) -> float:
        below = sum(other < score for other in known)
        equal = sum(other == score for other in known)
        return (below + (equal - 1) / 2) / (len(known) - 1)

    return [None if score is None else place(score) for score in scores]


def _pairs(group: Sequence[Voted]) -> tuple[float, float]:
    """Pairs of a liked and a disliked image that the judge puts as people do, and all pairs."""
    liked = _scores_of(group, lambda image: 2 * image.likes > image.votes)
    disliked = _scores_of(group, lambda image: 2 * image.likes < image.votes)
    agreed = sum((a > b) + (a == b) / 2 for a in liked for b in disliked)
    return agreed, float(len(liked) * len(disliked))


def _scores_of(group: Sequence[Voted], which: Callable[[Voted], bool]) -> list[float]:
    return [image.score for image in group if image.score is not None and which(image)]


def _key(item: tuple[float, int, Voted]) -> float:
    return item[0]


def _bin(items: Sequence[tuple[float, int, Voted]]) -> Bin:
    clusters: dict[int, tuple[float, float]] = {}
    for _, group, image in items:
        likes, votes = clusters.get(group, (0.0, 0.0))
        clusters[group] = likes + image.likes, votes + image.votes
    like_rate = share_of(clusters.values())
    assert like_rate is not None, "a bin has votes"
    return Bin(items[0][0], items[-1][0], like_rate)
