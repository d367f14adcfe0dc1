"""What a pool's work costs: latency, how full its batches are, what got no answer and why.

`drain` gives the numbers since it was last asked. What did not happen has no number: no latency
without a batch, and no failure is counted where nothing was tried.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

QUANTILES = {"p50": 0.5, "p95": 0.95}
BOUNDS_S = (0.01, 0.1, 0.5, 1, 5, 10, 50, 100, 500, math.inf)
"""A batch is counted at the first of these that its seconds do not exceed."""


class Costs:
    """Adds up between two lines of telemetry."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._latencies: list[float] = []
        self._waits: list[float] = []
        self._counts: Counter[str] = Counter()

    def note_batch(self, seconds: float, waits: Sequence[float], counts: Mapping[str, int]) -> None:
        """A batch that is done: the worker's seconds, its pieces' waits, what the worker counted.

        `counts` has `images`, `evaluations` (calls of the reward itself), and any others.
        """
        self._latencies.append(seconds)
        self._counts[f"batch_seconds/{BOUNDS_S[bisect_left(BOUNDS_S, seconds)]:g}"] += 1
        self._waits.extend(waits)
        self._counts.update(counts)

    def count(self, name: str, number: int = 1) -> None:
        """Something that happened beside the batches."""
        self._counts[name] += number

    def drain(self) -> dict[str, float]:
        """The numbers so far, to be started anew; `seconds` is the workers' time."""
        numbers = {name: float(count) for name, count in self._counts.items()}
        for state in ("failed", "expired"):
            reasons = [n for name, n in self._counts.items() if name.startswith(f"{state}/")]
            if reasons or self._latencies:
                numbers[state] = float(sum(reasons))
        evaluations = numbers.pop("evaluations", 0.0)
        if self._latencies:
            numbers["batches"] = evaluations
            numbers["batch_fill"] = numbers["images"] / (evaluations * self._batch_size)
            numbers["seconds"] = sum(self._latencies)
            numbers["images_per_s"] = numbers["images"] / max(numbers["seconds"], 1e-9)
            numbers |= _quantiles("latency", self._latencies) | _quantiles("wait", self._waits)
        self._latencies, self._waits, self._counts = [], [], Counter()
        return numbers


def _quantiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{label}_s": quantile(values, q) for label, q in QUANTILES.items()}


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest rank: the smallest value that at least a share `q` of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)), 1) - 1]
