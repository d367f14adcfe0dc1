"""A run's numbers as columns: appended line by line, cut by step, thinned for a curve.

A number that was not finite is missing (NaN here, null outside); one that a line does not have is
not a point at all. A run that is resumed says some iterations again: the later telling stands.
"""

import math
import statistics
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from services.run_store.vitals import SILENT_S
from services.runs_api.downsampling import keep, stretches

ABOUT = ("time", "step", "policy_version", "surrogate_version")
"""Members of a line that are no measurements."""
GAP_TIMES = 5.0
"""How many times longer than usual nothing is told before it is a silence."""


@dataclass(frozen=True)
class Series:
    """One number over the iterations; the lists are as long as one another."""

    name: str
    steps: list[int]
    times: list[float]
    policy_versions: list[int]
    values: list[float | None]
    num_points: int
    """How many there are; more than shown where the curve was thinned."""
    silences: list[int]
    """Indices of points before which nothing was told for far longer than is usual: a gap."""


@dataclass(frozen=True)
class Stack:
    """Numbers that add up, each as its mean over the iterations of the same stretches."""

    spans: list[tuple[int, int]]
    """First and last iteration of each stretch."""
    parts: dict[str, list[float | None]]
    """One mean a stretch; None where it was not told there."""


@dataclass(frozen=True)
class Point:
    """One number as it was last told."""

    value: float | None
    step: int
    time: float
    policy_version: int


@dataclass
class _Column:
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))

    def at(self, row: int) -> float | None:
        """What that line tells."""
        index = bisect_left(self.rows, row)
        is_told = index < len(self.rows) and self.rows[index] == row
        return _known(self.values[index]) if is_told else None

    def mean(self, first_row: int, end_row: int, num_iterations: int) -> float | None:
        """Over iterations; one whose number is not finite does not count."""
        told = self.values[bisect_left(self.rows, first_row) : bisect_left(self.rows, end_row)]
        known = [value for value in told if not math.isnan(value)]
        num_iterations -= len(told) - len(known)
        return math.fsum(known) / num_iterations if known else None


class MetricTable:
    """Rows are lines of metrics.jsonl, columns are `stage/name`."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.times = array("d")
        self.policy_versions = array("q")
        self.num_skipped = 0
        """Lines of the file that are not as they must be, and are not here."""
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def names(self) -> list[str]:
        """Every number that was told, by name."""
        return sorted(self._columns)

    def add(self, line: Mapping[str, Any]) -> None:
        """One more line (`are_numbers`)."""
        step = line["step"]
        if self.steps and step < self.steps[-1]:
            self._take_back(step)
        row = len(self.steps)
        self.steps.append(step)
        self.times.append(line["time"])
        self.policy_versions.append(line["policy_version"])
        for name, value in line.items():
            if name not in ABOUT:
                column = self._columns.setdefault(name, _Column())
                column.rows.append(row)
                column.values.append(math.nan if value is None or math.isinf(value) else value)

    def _take_back(self, step: int) -> None:
        row = bisect_left(self.steps, step)
        for about in (self.steps, self.times, self.policy_versions):
            del about[row:]
        for name, column in list(self._columns.items()):
            first = bisect_left(column.rows, row)
            del column.rows[first:], column.values[first:]
            if not column.rows:
                del self._columns[name]

    def lines(self) -> list[dict[str, Any]]:
        """The lines that stand, as they were added."""
        found: list[dict[str, Any]] = [
            {"time": time, "step": step, "policy_version": version}
            for time, step, version in zip(
                self.times, self.steps, self.policy_versions, strict=True
            )
        ]
        for name, column in self._columns.items():
            for row, value in zip(column.rows, column.values, strict=True):
                found[row][name] = _known(value)
        return found

    def series(
        self,
        name: str,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int = 2000,
    ) -> Series:
        """A number between two iterations, both included; KeyError where there is none so named."""
        return self.together([name], from_step, to_step, max_points)[0]

    def together(
        self,
        names: Sequence[str],
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int = 2000,
    ) -> list[Series]:
        """Numbers at the very same lines: those at which the first of them, thinned, is shown."""
        lead = self._columns[names[0]]
        first_row, end_row = self._rows(from_step, to_step)
        first, end = bisect_left(lead.rows, first_row), bisect_left(lead.rows, end_row)
        kept = keep(lead.values[first:end], max_points)
        rows = [lead.rows[first + index] for index in kept]
        silences = _silences([self.times[row] for row in lead.rows[first:end]])
        return [
            Series(
                name,
                [self.steps[row] for row in rows],
                [self.times[row] for row in rows],
                [self.policy_versions[row] for row in rows],
                [self._columns[name].at(row) for row in rows],
                end - first,
                sorted({bisect_left(kept, index) for index in silences}),
            )
            for name in names
        ]

    def stack(self, names: Sequence[str], max_spans: int) -> Stack:
        """Numbers as means over the iterations of the same stretches, so that they add up to the
        mean of their sum. An iteration that did not tell one of them spent nothing on it."""
        columns = {name: self._columns[name] for name in names}
        steps = sorted({self.steps[row] for column in columns.values() for row in column.rows})
        spans = [(steps[part[0]], steps[part[-1]]) for part in stretches(len(steps), max_spans)]
        counts = [len(part) for part in stretches(len(steps), max_spans)]
        bounds = [self._rows(*span) for span in spans]
        parts = {
            name: [column.mean(*rows, count) for rows, count in zip(bounds, counts, strict=True)]
            for name, column in columns.items()
        }
        return Stack(spans, parts)

    def _rows(self, from_step: int | None, to_step: int | None) -> tuple[int, int]:
        """Of the first line between two iterations, and behind the last one."""
        first = 0 if from_step is None else bisect_left(self.steps, from_step)
        return first, len(self) if to_step is None else bisect_right(self.steps, to_step)

    def latest(self, name: str) -> Point | None:
        """A number as it was last told, if it ever was."""
        column = self._columns.get(name)
        if column is None:
            return None
        row = column.rows[-1]
        return Point(
            _known(column.values[-1]), self.steps[row], self.times[row], self.policy_versions[row]
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _silences(times: Sequence[float]) -> list[int]:
    """Indices of what came after a silence; worked out from all there is, since points that were
    left out are no silence."""
    waits = [after - before for before, after in pairwise(times)]
    limit = max(SILENT_S, GAP_TIMES * statistics.median(waits)) if waits else 0.0
    return [index for index, wait in enumerate(waits, 1) if wait > limit]
