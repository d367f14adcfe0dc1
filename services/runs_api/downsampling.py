"""Fewer points of a curve that still looks like itself: peaks, dips and gaps stay."""

import math
from collections.abc import Sequence

MIN_POINTS = 8


def stretches(num: int, max_stretches: int) -> list[range]:
    """0 to `num` cut into at most so many parts that differ in length by one at most."""
    count = min(num, max_stretches)
    return [range(part * num // count, (part + 1) * num // count) for part in range(count)]


def keep(values: Sequence[float], max_points: int) -> list[int]:
    """Indices, in order, of at most `max_points` values: the first, the last, and of each of equal
    stretches the lowest, the highest and one that is missing (NaN), so that a gap stays a gap."""
    if max_points < MIN_POINTS:
        raise ValueError(f"max_points={max_points} shows no curve; use {MIN_POINTS} or more")
    num = len(values)
    if num <= max_points:
        return list(range(num))
    has_gaps = any(math.isnan(value) for value in values)
    kept = {0, num - 1}
    for inner in stretches(num - 2, (max_points - 2) // (3 if has_gaps else 2)):
        kept |= _extremes(values, range(inner.start + 1, inner.stop + 1))
    return sorted(kept)


def _extremes(values: Sequence[float], stretch: range) -> set[int]:
    there = [index for index in stretch if not math.isnan(values[index])]
    missing = next((index for index in stretch if math.isnan(values[index])), None)
    found = set() if missing is None else {missing}
    if there:
        found |= {min(there, key=values.__getitem__), max(there, key=values.__getitem__)}
    return found
