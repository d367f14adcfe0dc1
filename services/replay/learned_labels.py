"""Which people's labels the surrogate has learned from, told by checkpoints."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tdm_core.types import RewardedGroup, RewardRecord


@dataclass(frozen=True)
class _Answer:
    """What people said of one group, at one revision."""

    votes: float
    newest_label: int
    """Number in the label service's sequence; 0 where it did not say."""


class LearnedLabels:
    """Counts answers once the surrogate has drawn their groups."""

    def __init__(self, people: Sequence[str]) -> None:
        """`people`: the rewards that people give."""
        self._people = frozenset(people)
        self._waiting: dict[int, _Answer] = {}
        """By group: the newest answer that the surrogate has not drawn."""
        self._answers, self._votes, self._newest_label = 0, 0.0, 0

    def heard(self, records: Iterable[RewardRecord]) -> None:
        """Verdicts of any rewards, an image each."""
        found: dict[int, list[RewardRecord]] = {}
        for record in records:
            if record.reward in self._people and record.state == "ready":
                found.setdefault(record.group_id, []).append(record)
        for group_id, each in found.items():
            votes = sum(record.parts.get("n", 0.0) for record in each)
            newest = max(record.parts.get("label_seq", 0.0) for record in each)
            self._waiting[group_id] = _Answer(votes, int(newest))

    def drawn(self, groups: Iterable[RewardedGroup]) -> None:
        """The surrogate's batch."""
        for group in groups:
            answer = self._waiting.pop(group.group.group_id, None)
            if answer is not None:
                self._answers += 1
                self._votes += answer.votes
                self._newest_label = max(self._newest_label, answer.newest_label)

    def kept(self, has: Callable[[int], bool]) -> None:
        """What the buffer has let go will not be drawn."""
        for group_id in [group_id for group_id in self._waiting if not has(group_id)]:
            del self._waiting[group_id]

    def state(self) -> dict[str, Any]:
        """JSON-able: `answers` (groups' revisions), their `votes`, the `newest_label` among them
        (null where none was told), and what waits."""
        waiting = [[id, each.votes, each.newest_label] for id, each in self._waiting.items()]
        newest = self._newest_label or None
        told = {"answers": self._answers, "votes": self._votes, "newest_label": newest}
        return told | {"waiting": waiting}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave."""
        self._answers, self._votes = state["answers"], state["votes"]
        self._newest_label = state["newest_label"] or 0
        self._waiting = {id: _Answer(*answer) for id, *answer in state["waiting"]}
