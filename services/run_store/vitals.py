"""Since when a run's workers are as they are, and when the run itself was silent: what makes of
flickers one alert, written into the status, so that every reader knows the same."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WELL_S = 60.0
"""How long a worker or a run must be well before its last trouble is over."""
SILENT_S = 30.0
"""A living run renews its status every few seconds."""


@dataclass(frozen=True)
class _Spell:
    """A worker that is as it is since some time."""

    is_dead: bool
    restarts: int
    since: float
    died_at: float | None
    """When its newest trouble began."""


class Vitals:
    """What the writer of a status remembers from one to the next."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._spells: dict[str, _Spell] = {}
        self._written_at: float | None = None
        self._silence: dict[str, float] | None = None

    def note(self, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """`workers`, each with `since` and `died_at`; and `silence`, the newest."""
        now = self._clock()
        spells = {name: self._spell(name, said, now) for name, said in workers.items()}
        self._spells = spells
        if self._written_at is not None and now - self._written_at > SILENT_S:
            self._silence = {"from": self._start(self._written_at), "until": now}
        self._written_at = now
        dated = {
            name: {**said, "since": spells[name].since, "died_at": spells[name].died_at}
            for name, said in workers.items()
        }
        return {"workers": dated, "silence": self._silence}

    def _spell(self, name: str, said: Mapping[str, Any], now: float) -> _Spell:
        before = self._spells.get(name)
        is_dead = bool(said["pids"]) and not said["alive"]  # one without has not started yet
        restarts = said["restarts"]
        if before is not None and (is_dead, restarts) == (before.is_dead, before.restarts):
            return before
        died_at = before.died_at if before is not None else None
        is_trouble = is_dead or restarts > (before.restarts if before is not None else restarts)
        was_well = before is None or (not before.is_dead and now - before.since >= WELL_S)
        if is_trouble and (was_well or died_at is None):
            died_at = now
        return _Spell(is_dead, restarts, now, died_at)

    def _start(self, since: float) -> float:
        """Of a silence that began then: a shorter pause than `WELL_S` does not end one."""
        if self._silence is not None and since - self._silence["until"] < WELL_S:
            return self._silence["from"]
        return since
