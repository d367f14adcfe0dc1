"""What a live run's lines add up to, for Prometheus: counters and histograms.

    every whole line of metrics.jsonl, once -> sums and spreads -> metric families

What was done twice, since a run was taken back to a checkpoint, counts twice: it was done. Totals
that the run itself keeps (`replay/...`) grow by what they grew; one that shrank began anew.
"""

import re
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from services.run_store.forms import are_numbers
from services.run_store.tail import Tail

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
"""Upper bounds of what takes time."""
TOLD = {
    "remote_reward_seconds": (0.01, 0.1, 0.5, 1, 5, 10, 50, 100, 500),
    "staleness_steps": (0, 1, 2, 4, 8, 16, 32, 64),
}
"""Upper bounds at which the run itself counts: in `runtime.costs`, in `replay.worker`."""
Labels = tuple[str, ...]
Key = tuple[str, Labels]
"""A metric's name and its labels' values."""

NEVER_BEGUN = ("failed/killed", "expired/too_old", "expired/queue", "expired/overflow")
"""Images without a value that no worker's count of images has in it."""
_OUTCOME = re.compile(r"reward/([^/]+)/((failed|expired)/[^/]+)")
_IMAGES = re.compile(r"reward/([^/]+)/images")
_BATCH = re.compile(r"reward/([^/]+)/batch_seconds/(.+)")
_AGE = re.compile(r"replay/staleness_(generator|surrogate)/(.+)")
_OF_REWARD = re.compile(r"seconds/reward/([^/]+)")
_PHASE = re.compile(r"seconds/([^/]+)")
_DROPPED = re.compile(r"replay/dropped_(\w+)")


@dataclass
class Spread:
    """How many values lie below each of some bounds, and their sum."""

    bounds: tuple[float, ...]
    counts: list[float] = field(default_factory=list)
    """Between a bound and the one before it; the last is of those above all."""
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0.0] * (len(self.bounds) + 1)

    def add(self, value: float, times: float = 1) -> None:
        """A value, which is at most the bound that it is counted at."""
        self.counts[bisect_left(self.bounds, value)] += times

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: bounds as text, and how many are no greater."""
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


class Tally:
    """The sums of one run, brought up to date at each look."""

    def __init__(self, path: Path) -> None:
        """`path` of metrics.jsonl; nothing is read before the first look."""
        self._path = path
        self._lock = threading.Lock()
        self._start_anew()

    def _start_anew(self) -> None:
        self._tail = Tail(self._path, is_ours=are_numbers)
        self._step = 0
        self._kept: dict[str, float] = {}
        self.sums: defaultdict[Key, float] = defaultdict(float)
        self.spreads: dict[Key, Spread] = {}

    @property
    def position(self) -> int:
        """Bytes that have been read."""
        return self._tail.position

    @contextmanager
    def looked_at(self) -> Iterator["Tally"]:
        """Itself, with every line that is written by now; nobody else's meanwhile."""
        with self._lock:
            self._read()
            if self._tail.is_over:
                self._start_anew()
                self._read()
            yield self

    def _read(self) -> None:
        while lines := self._tail.read():
            for line in lines:
                self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in line.items() if value is not None}
        # A line of its own, such as that of the last evaluation, is no iteration.
        if line["step"] != self._step:
            self._step = line["step"]
            self._observe("train_step_seconds", (), numbers.get("seconds/iteration"))
        self._observe("weight_sync_seconds", (), numbers.get("seconds/publish"))
        self.sums["images_generated", ()] += numbers.get("rollout/images", 0.0)
        for name, value in numbers.items():
            self._add_number(name, value, numbers)

    def _add_number(self, name: str, value: float, line: Mapping[str, float]) -> None:
        stage = name.partition("/")[0]
        if stage == "seconds":
            self._add_seconds(name, value, line)
        elif stage == "reward":
            self._add_reward(name, value)
        elif stage == "replay":
            self._add_replay(name, value)

    def _add_seconds(self, name: str, value: float, line: Mapping[str, float]) -> None:
        if found := _OF_REWARD.fullmatch(name):
            if f"reward/{found[1]}/batches" in line:  # people have seconds and no batches
                self._spread("remote_reward_seconds", found.groups()).total += value
        elif (found := _PHASE.fullmatch(name)) and found[1] != "iteration":
            self._observe("phase_seconds", found.groups(), value)

    def _add_reward(self, name: str, value: float) -> None:
        if found := _BATCH.fullmatch(name):
            self._spread("remote_reward_seconds", (found[1],)).add(float(found[2]), value)
        elif found := _IMAGES.fullmatch(name):
            self.sums["remote_reward_requests", (found[1], "ready")] += value
        elif found := _OUTCOME.fullmatch(name):
            reward, why, state = found.groups()
            self.sums["remote_reward_requests", (reward, state)] += value
            if why not in NEVER_BEGUN:
                self.sums["remote_reward_requests", (reward, "ready")] -= value

    def _add_replay(self, name: str, value: float) -> None:
        if found := _DROPPED.fullmatch(name):
            self.sums["groups_dropped", (found[1],)] += self._growth(name, value)
        elif found := _AGE.fullmatch(name):
            spread, growth = self._spread("staleness_steps", (found[1],)), self._growth(name, value)
            if found[2] == "sum":
                spread.total += growth
            else:
                spread.add(float(found[2]), growth)

    def _growth(self, name: str, value: float) -> float:
        before, self._kept[name] = self._kept.get(name, 0.0), value
        return value - before if value >= before else value

    def _observe(self, metric: str, labels: Labels, value: float | None) -> None:
        if value is not None:
            spread = self._spread(metric, labels)
            spread.add(value)
            spread.total += value

    def _spread(self, metric: str, labels: Labels) -> Spread:
        return self.spreads.setdefault((metric, labels), Spread(TOLD.get(metric, SECONDS)))
