"""Which groups people are asked about: their time is what a run has least of.

The freshest policy first, since the surrogate is asked about today's images; then the largest
contrast of automatic rewards, since people too will find a difference there. A group that has not
been chosen while its policy was fresh is let go.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.config import HumanOptions
from tdm_core.types import ImageGroup, RewardRecord

BURST_S = 60.0
"""The hourly budget may be spent so far ahead."""


@dataclass(frozen=True)
class Candidate:
    """A group that people could be asked about."""

    images: ImageGroup
    """What they would see."""
    automatic: dict[str, list[float | None]]
    """Automatic rewards by name, one an image; None is missing."""
    contrast: float
    """How much those differ within the group, each in units of the largest seen; 0 without any."""


@dataclass(frozen=True)
class Choice:
    """What becomes of the candidates."""

    send: list[Candidate]
    """People are asked about these now."""
    let_go: list[Candidate]
    """Nobody will be asked about these."""


class LabelSampling:
    """Keeps the candidates and chooses among them."""

    def __init__(self, options: HumanOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self.options = options
        self._clock = clock
        self._candidates: list[Candidate] = []
        self._credit = 0.0
        self._largest: dict[str, float] = {}
        self._budget, self._budget_at = self._burst, clock()

    @property
    def num_candidates(self) -> int:
        """Groups that wait to be chosen."""
        return len(self._candidates)

    @property
    def candidates(self) -> set[int]:
        """Their ids."""
        return {candidate.images.group_id for candidate in self._candidates}

    def offer(self, groups: Sequence[ImageGroup], records: Sequence[RewardRecord]) -> None:
        """Take in groups with what automatic rewards say of their final images."""
        by_group: dict[int, dict[str, dict[int, float | None]]] = {}
        for record in records:
            rewards = by_group.setdefault(record.group_id, {})
            rewards.setdefault(record.reward, {})[record.sample] = record.value
        for group in groups:
            said = by_group.get(group.group_id, {})
            size = group.images_GS3HW.shape[0]
            automatic = {name: [of.get(i) for i in range(size)] for name, of in said.items()}
            candidate = Candidate(group, automatic, self._contrast(automatic))
            self._candidates.append(candidate)
            self._credit += self.options.fraction

    def choose(self, num_open: int, policy_version: int) -> Choice:
        """Those to send now, best first, and those whose time is over."""
        self._candidates.sort(key=lambda c: (-c.images.policy_version, -c.contrast))
        free = self.options.max_open_groups - num_open
        num = int(max(min(self._credit, free, self._affordable()), 0))
        send, rest = self._candidates[:num], self._candidates[num:]
        self._credit -= len(send)
        self._budget -= len(send)
        oldest = policy_version - self.options.max_candidate_age
        self._candidates = [c for c in rest if c.images.policy_version >= oldest]
        # Credit of groups that are gone buys no later ones.
        self._credit = min(self._credit, len(self._candidates) + 1.0)
        return Choice(send, [c for c in rest if c.images.policy_version < oldest])

    def put_back(self, candidates: Sequence[Candidate]) -> None:
        """Chosen groups that could not be sent wait again."""
        self._candidates += candidates
        self._credit += len(candidates)
        self._budget += len(candidates)

    @property
    def _burst(self) -> float:
        hourly = self.options.groups_per_hour
        return math.inf if hourly is None else max(hourly * BURST_S / 3600, 1.0)

    def _affordable(self) -> float:
        """Groups that the budget pays for; it fills evenly over the hour."""
        now, hourly = self._clock(), self.options.groups_per_hour
        if hourly is None:
            return math.inf
        earned = (now - self._budget_at) * hourly / 3600
        self._budget, self._budget_at = min(self._budget + earned, self._burst), now
        return self._budget

    def _contrast(self, automatic: dict[str, list[float | None]]) -> float:
        total = 0.0
        for name, values in automatic.items():
            present = [value for value in values if value is not None]
            if len(present) >= 2:
                mean = sum(present) / len(present)
                spread = math.sqrt(sum((v - mean) ** 2 for v in present) / len(present))
                self._largest[name] = max(self._largest.get(name, 0.0), spread)
                total += spread / self._largest[name] if spread else 0.0
        return total
