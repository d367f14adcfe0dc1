"""When a person's pace or share of likes departs from the others', or from their own before.

Taste and patience differ honestly, so the bars are high: what passes them is a reason to look.
Standard library only: the label service has no torch.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from tdm_core.clustered_share import Share, share_of

CROWD = 5
"""People below whom there is no norm to depart from."""
FASTER = 3.0
"""Times the norm that a pace departs at."""
SWIFT = 30.0
"""Votes a minute below which nobody is too fast, whatever the norm."""
UNLIKE_Z = 3.5
"""Robust standard deviations (Iglewicz and Hoaglin 1993) that a share of likes departs at."""
SPREAD = 0.5
"""Logits that people are taken to differ by at least: what 20 votes tell no better."""
SHIFT = 0.3
"""Change of a share below which it is nobody's business, however sure."""


@dataclass(frozen=True)
class Vote:
    """A like or dislike, as far as habits go."""

    group: str
    is_like: bool
    minute: int | None
    """When it arrived, in whole minutes; None where that tells no pace (an import)."""


def pace(votes: Iterable[Vote]) -> float | None:
    """Votes a minute, the median of the minutes that have any: breaks, and answers that waited in a
    browser and come at once, do not move it. By the server's clock; None where nothing tells it."""
    counts = Counter(vote.minute for vote in votes if vote.minute is not None)
    return median(counts.values()) if counts else None


def is_faster(own: float | None, norm: float | None) -> bool:
    """Whether a pace is above what a norm allows."""
    return own is not None and norm is not None and own > max(FASTER * norm, SWIFT)


def unlike_others(counts: Mapping[str, tuple[int, int]]) -> set[str]:
    """Who likes far more or less than people do, of (likes, votes): by the logit's distance from
    the median person's over the spread of people (1.4826 MAD, at least `SPREAD`)."""
    if len(counts) < CROWD:
        return set()
    logits = {who: _logit(likes, num) for who, (likes, num) in counts.items()}
    middle = median(logits.values())
    spread = max(1.4826 * median(abs(x - middle) for x in logits.values()), SPREAD)
    return {who for who, x in logits.items() if abs(x - middle) > UNLIKE_Z * spread}


def has_shifted(
    recent: Iterable[Vote],
    earlier: Iterable[Vote],
    others_recent: Iterable[Vote] = (),
    others_earlier: Iterable[Vote] = (),
) -> bool:
    """Whether somebody likes otherwise than before, beyond how everybody else's share moved
    meanwhile: images get better. Votes on a group are one cluster."""
    now, before = _share(recent), _share(earlier)
    if now is None or before is None:
        return False
    theirs = _share(others_recent), _share(others_earlier)
    moved = theirs[0].value - theirs[1].value if theirs[0] and theirs[1] else 0.0
    expected = min(max(before.value + moved, 0.0), 1.0)
    return abs(now.value - expected) >= SHIFT and not now.low <= expected <= now.high


def _share(votes: Iterable[Vote]) -> Share | None:
    likes, nums = Counter[str](), Counter[str]()
    for vote in votes:
        likes[vote.group] += vote.is_like
        nums[vote.group] += 1
    return share_of((likes[group], num) for group, num in nums.items())


def _logit(likes: int, num: int) -> float:
    return math.log((likes + 0.5) / (num - likes + 0.5))
