"""How many workers a pool should have, from how much has waited for how long.

    crowded: every worker has another batch waiting, for up_after_s    -> one more
    idle:    nothing waits and a worker has nothing to do, for down_after_s -> one fewer

Between the two nothing changes, and after a change both times start anew: a burst starts no worker
and a pause ends none.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ScaleBounds:
    """What a pool's size may be, and how slowly it changes."""

    fewest: int
    """Workers when there is nothing to do."""
    most: int
    """Workers when there is too much."""
    up_after_s: float = math.inf
    """Seconds of crowding before one more; inf leaves the size to people."""
    down_after_s: float = math.inf
    """Seconds of idleness before one fewer."""

    @property
    def is_automatic(self) -> bool:
        """Whether the size follows from what there is to do."""
        return self.up_after_s < math.inf


class Scaler:
    """Remembers since when a pool has been crowded or idle."""

    def __init__(self, bounds: ScaleBounds) -> None:
        self.bounds = bounds
        self._crowded_since: float | None = None
        self._idle_since: float | None = None

    def step(self, now: float, waiting: float, idle: int, workers: int) -> int:
        """1, 0 or -1 workers; `waiting` in batches nobody has begun, `workers` with those coming.

        `now` in seconds; to be called whenever one of the others may have changed.
        """
        crowded, idles = waiting >= workers, waiting == 0 and idle > 0
        self._crowded_since = _since(self._crowded_since, crowded, now)
        self._idle_since = _since(self._idle_since, idles, now)
        step = self._due(now, workers)
        if step:
            self._crowded_since = self._idle_since = None
        return step

    def _due(self, now: float, workers: int) -> int:
        bounds = self.bounds
        if workers < bounds.most and _lasted(self._crowded_since, bounds.up_after_s, now):
            return 1
        if workers > bounds.fewest and _lasted(self._idle_since, bounds.down_after_s, now):
            return -1
        return 0


def _since(since: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if since is None else since


def _lasted(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since >= seconds
