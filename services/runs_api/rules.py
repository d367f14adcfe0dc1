"""Rules over a run's numbers, followed line by line.

A rule is raised after `hold` lines at or above one threshold and cleared after as many below
another. A number that a line does not have, or that was not finite, neither raises nor clears.
"""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warning", "critical"]


@dataclass(frozen=True)
class Rule:
    """A number that must not stay high."""

    name: str
    metric: str
    """Its name, or its end where it begins with `*`: every number so named."""
    raise_at: float
    clear_below: float
    hold: int
    """Lines in a row that it takes, to raise and to clear."""
    severity: Severity
    title: str
    remedy: str
    out_of: str = ""
    """The number beside it that it is a count out of; it is a level of its own if empty."""

    def is_about(self, name: str) -> bool:
        """Whether it watches the number of that name."""
        is_end = self.metric.startswith("*")
        return name.endswith(self.metric[1:]) if is_end else name == self.metric


RULES = (
    Rule(
        "zero_signal",
        "advantage/zero_signal",
        0.4,
        0.3,
        3,
        "warning",
        "Many groups without contrast: their images all get the same reward",
        "an easier reward, larger groups or mixed prompts",
    ),
    Rule(
        "step_lost",
        "*/step_lost",
        0.5,
        0.5,
        1,
        "critical",
        "A step was not finite and is lost",
        "look at the losses of the Training page; lower the learning rate",
    ),
    Rule(
        "staleness",
        "replay/staleness_surrogate_mean",
        4.0,
        3.0,
        3,
        "warning",
        "The surrogate learns from old groups",
        "more reward workers, or fewer rollouts in flight",
    ),
    Rule(
        "invalid_rewards",
        "*/missing",
        0.2,
        0.1,
        1,
        "warning",
        "A reward does not answer for many held-out images",
        "`tdm-r1 logs` says why; see the states in the Gallery",
        out_of="num_images",
    ),
    Rule(
        "queue_growth",
        "*/queue_depth",
        4.0,
        2.0,
        3,
        "warning",
        "A reward falls behind: more images wait for it than it judges in four iterations",
        "raise its max_workers, or let images expire (queue_deadline_s)",
        out_of="images",
    ),
)


@dataclass(frozen=True)
class Moment:
    """A line of the numbers."""

    time: float
    """Unix time."""
    step: int


@dataclass
class Episode:
    """From where a rule is raised to where it is cleared."""

    start: Moment
    end: Moment | None
    """None while it lasts."""
    peak: float


class Hysteresis:
    """Follows one number between two thresholds."""

    def __init__(
        self, raise_at: float, clear_below: float, hold: int, clear_hold: int | None = None
    ) -> None:
        """`hold` values in a row raise; as many clear, or `clear_hold`."""
        self.episodes: list[Episode] = []
        self._thresholds = raise_at, clear_below
        self._holds = hold, hold if clear_hold is None else clear_hold
        self._num_in_a_row = 0

    def add(self, value: float | None, at: Moment) -> None:
        """The next value; None if it is missing."""
        if value is None:
            return
        raise_at, clear_below = self._thresholds
        lasting = self.episodes[-1] if self.episodes and self.episodes[-1].end is None else None
        counts = value >= raise_at if lasting is None else value < clear_below
        self._num_in_a_row = self._num_in_a_row + 1 if counts else 0
        if lasting is not None:
            lasting.peak = max(lasting.peak, value)
        if self._num_in_a_row < self._holds[lasting is not None]:
            return
        self._num_in_a_row = 0
        if lasting is None:
            self.episodes.append(Episode(at, None, value))
        else:
            lasting.end = at
