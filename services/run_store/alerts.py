"""What a run has found wrong with itself: alerts.jsonl, one object a line, one writer.

A line is an alert as it stood: id, rule, severity, title, detail, remedy, time (Unix seconds) and
step at which it was raised, cleared_at and cleared_step (null while it lasts), and what the rule
adds. When an alert changes it is written again: of one id the last line stands.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class AlertLog:
    """The run's one writer of its alerts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, alert: Mapping[str, Any]) -> None:
        """Append an alert that is new or has changed; readers see whole lines only."""
        with self._path.open("a") as file:
            file.write(json.dumps(alert, allow_nan=False) + "\n")


def standing(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each alert as its last line has it, in the order in which they were raised."""
    newest: dict[Any, Mapping[str, Any]] = {}
    for place, line in enumerate(lines):
        newest[line.get("id", place)] = line
    return list(newest.values())
