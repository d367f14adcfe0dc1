"""What lists show of a run: its newest numbers, and which rules they break.

Kept up line by line, in little memory, so that a folder of many runs is read once and not anew at
every look.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from services.runs_api.metric_table import ABOUT, Point
from services.runs_api.rules import RULES, Hysteresis, Moment, Rule

NUM_TIMES = 50
"""Newest lines whose times are kept."""


class Glance:
    """A run's numbers at a glance."""

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        """`lines` of metrics.jsonl (`are_numbers`), the oldest first."""
        self.newest: dict[str, Point] = {}
        """Each number as it was last told."""
        self.times: deque[float] = deque(maxlen=NUM_TIMES)
        self.step = -1
        """Of the newest line."""
        self.followed: dict[tuple[str, str], Hysteresis] = {}
        """By the names of a rule and of a number."""
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> bool:
        """One more line; False where a resumed run takes others back, so that it must be made
        anew from those that stand."""
        if line["step"] < self.step:
            return False
        self.step = line["step"]
        self.times.append(line["time"])
        at = line["step"], line["time"], line["policy_version"]
        for name, value in line.items():
            if name not in ABOUT:
                self.newest[name] = Point(value, *at)
                self._follow(name, value, line)
        return True

    def _follow(self, name: str, value: float | None, line: Mapping[str, Any]) -> None:
        for rule in RULES:
            if rule.is_about(name):
                followed = self.followed.setdefault(
                    (rule.name, name), Hysteresis(rule.raise_at, rule.clear_below, rule.hold)
                )
                level = _level(rule, name, value, line)
                followed.add(level, Moment(line["time"], line["step"]))


def _level(rule: Rule, name: str, value: float | None, line: Mapping[str, Any]) -> float | None:
    """The number, or the share that it is: `evaluation/student/ocr/missing` is a count out of
    `evaluation/student/num_images`."""
    if not rule.out_of or value is None:
        return value
    whole = line.get("/".join([*name.split("/")[:2], rule.out_of]))
    return value / whole if whole else None
