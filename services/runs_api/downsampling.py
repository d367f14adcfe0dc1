"""Fewer points of a curve that still looks like itself: peaks, dips and gaps stay."""

import math
from collections.abc import Sequence

MIN_POINTS = 8


def keep(values: Sequence[float], max_points: int) -> list[int]:
    """Indices, in order, of at most `max_points` values: the first, the last, and of each of equal
    stretches the lowest, the highest and one that is missing (NaN), so that a gap stays a gap."""
    if max_points < MIN_POINTS:
        raise ValueError(f"max_points={max_points} shows no curve; use {MIN_POINTS} or more")
    num = len(values)
    if num <= max_points:
        return list(range(num))
    has_gaps = any(math.isnan(value) for value in values)
    num_stretches = (max_points - 2) // (3 if has_gaps else 2)
    kept = {0, num - 1}
    for stretch in range(num_stretches):
        first = 1 + stretch * (num - 2) // num_stretches
        last = 1 + (stretch + 1) * (num - 2) // num_stretches
        kept |= _extremes(values, range(first, last))
    return sorted(kept)


def _extremes(values: Sequence[float], stretch: range) -> set[int]:
    there = [index for index in stretch if not math.isnan(values[index])]
    missing = next((index for index in stretch if math.isnan(values[index])), None)
    found = set() if missing is None else {missing}
    if there:
        found |= {min(there, key=values.__getitem__), max(there, key=values.__getitem__)}
    return found
