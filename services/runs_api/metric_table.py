"""A run's numbers as columns: appended line by line, cut by step, thinned for a curve.

A number that was not finite is missing (NaN here, null outside); one that a line does not have is
not a point at all. A run that is resumed says some iterations again: the later telling stands.
"""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.runs_api.downsampling import keep

ABOUT = ("time", "step", "policy_version", "surrogate_version")
"""Members of a line that are no measurements."""


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


class MetricTable:
    """Rows are lines of metrics.jsonl, columns are `stage/name`."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.times = array("d")
        self.policy_versions = array("q")
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def names(self) -> list[str]:
        """Every number that was told, by name."""
        return sorted(self._columns)

    def add(self, line: Mapping[str, Any]) -> None:
        """One more line."""
        step = int(line["step"])
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
                column.values.append(math.nan if value is None else value)

    def _take_back(self, step: int) -> None:
        row = bisect_left(self.steps, step)
        for about in (self.steps, self.times, self.policy_versions):
            del about[row:]
        for name, column in list(self._columns.items()):
            first = bisect_left(column.rows, row)
            del column.rows[first:], column.values[first:]
            if not column.rows:
                del self._columns[name]

    def series(
        self,
        name: str,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int = 2000,
    ) -> Series:
        """A number between two iterations, both included; KeyError where there is none so named."""
        column = self._columns[name]
        first_row = 0 if from_step is None else bisect_left(self.steps, from_step)
        end_row = len(self.steps) if to_step is None else bisect_right(self.steps, to_step)
        first, end = bisect_left(column.rows, first_row), bisect_left(column.rows, end_row)
        values = column.values[first:end]
        kept = keep(values, max_points)
        rows = [column.rows[first + index] for index in kept]
        return Series(
            name,
            [self.steps[row] for row in rows],
            [self.times[row] for row in rows],
            [self.policy_versions[row] for row in rows],
            [_known(values[index]) for index in kept],
            len(values),
        )

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
