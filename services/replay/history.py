"""What happens to groups whose images are stored, told for people; nothing trains on it. Of groups
that people labelled, stored or not, what they said and what others make of the same images.

Each event has time (Unix seconds), group_id, policy_version (the trainer's then) and its name:

    generated    by: the version that made the group
    judged       reward, version, revision of its verdict, latency_s, states, reason, values (G, S)
    labelled     the same of people, by, and parts (n, rho, likes) by image
    asked        reward: people were asked
    generator    its learner has drawn the group
    surrogate    its learner too: revision, weight, advantages (G, K), rewards (G, K) by name
    compared     of a labelled group: what the surrogate itself made of each image in that draw,
                 before it learned from it (values), and automatic rewards of final images (finals)
    left         the buffer has let it go

A value that is missing is null.
"""

import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tdm_core.batches import final_rewards
from tdm_core.config import AdvantageConfig
from tdm_core.types import RewardedBatch, RewardedGroup, RewardRecord, RolloutGroup

DIGITS = 6
Event = dict[str, Any]


class GroupHistory:
    """Collects events until they are taken away to be written."""

    def __init__(
        self,
        is_stored: Callable[[int], bool],
        people: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        """`people`: the rewards that people give; `clock` gives Unix seconds."""
        self.policy_version = 0
        self._is_stored = is_stored
        self._people = frozenset(people)
        self._clock = clock
        self._events: list[Event] = []
        self._finals: dict[int, dict[str, list[float | None]]] = {}
        self._held: set[int] = set()

    def drain(self) -> list[Event]:
        """What has happened since it was last asked."""
        events, self._events = self._events, []
        return events

    def generated(self, groups: Iterable[RolloutGroup]) -> None:
        """Groups that the buffer has taken in."""
        for group in groups:
            self._tell("generated", group.group_id, by=group.policy_version)
        self.hold(group.group_id for group in groups)

    def hold(self, group_ids: Iterable[int]) -> None:
        """Groups of which `left` is to be told."""
        self._held |= {group_id for group_id in group_ids if self._is_stored(group_id)}

    def judged(self, records: Iterable[RewardRecord], made_by: Callable[[int], int | None]) -> None:
        """Verdicts of any groups and rewards; people may be asked and answer twice in one call.
        `made_by`: the version that made a group, None once it has left the buffer."""
        verdicts: dict[tuple[int, str, bool, int], list[RewardRecord]] = {}
        for record in records:
            if self._is_stored(record.group_id) or _is_said(record, self._people):
                is_asked = record.state == "pending"
                key = record.group_id, record.reward, is_asked, record.revision
                verdicts.setdefault(key, []).append(record)
        for (group_id, reward, is_asked, _), each in verdicts.items():
            if is_asked:
                self._tell("asked", group_id, reward=reward)
            elif reward in self._people:
                parts = [_finite(record.parts) for record in _in_order(each)]
                by = made_by(group_id)
                self._write("labelled", group_id, by=by, **_verdict(each), parts=parts)
            else:
                self._tell("judged", group_id, **_verdict(each))

    def drawn_by_generator(self, groups: Iterable[RolloutGroup]) -> None:
        """A batch of the generator's learner."""
        for group in groups:
            self._tell("generator", group.group_id)

    def drawn_by_surrogate(
        self,
        groups: Sequence[RewardedGroup],
        batch: RewardedBatch,
        names: Sequence[str],
        config: AdvantageConfig,
    ) -> None:
        """A batch of the surrogate's learner, with the advantages that it learns from."""
        self._finals = {
            group.group.group_id: finals
            for group in groups
            if (finals := self._finals_of(group, names, config)) is not None
        }
        sizes = list(batch.fresh.group_sizes)
        parts = (batch.advantages_NK.split(sizes), batch.valid_NK.split(sizes))
        for group, advantages, valid in zip(groups, *parts, strict=True):
            rewards = zip(names, group.rewards_RGK, group.valid_RGK, strict=True)
            self._tell(
                "surrogate",
                group.group.group_id,
                revision=group.revision,
                weight=group.weight,
                advantages=_rows(advantages, valid),
                rewards={name: _rows(values, known) for name, values, known in rewards},
            )

    def seen_by_surrogate(self, rewards: Mapping[int, Sequence[float]]) -> None:
        """What its learner itself made of the images of the groups that it drew last."""
        for group_id, finals in self._finals.items():
            values = [[_rounded(reward)] for reward in rewards.get(group_id, ())]
            if values:
                self._write("compared", group_id, values=values, finals=finals)
        self._finals = {}

    def _finals_of(
        self, group: RewardedGroup, names: Sequence[str], config: AdvantageConfig
    ) -> dict[str, list[float | None]] | None:
        """Automatic rewards of the final images; None for a group that people did not label."""
        finals = {
            name: [_rounded(value) for value in final_rewards(rewards_GK, config).tolist()]
            for name, rewards_GK in zip(names, group.rewards_RGK, strict=True)
        }
        said = [finals.pop(name) for name in self._people]
        is_labelled = any(value is not None for of_images in said for value in of_images)
        return finals if is_labelled else None

    def kept(self, has: Callable[[int], bool]) -> None:
        """What the buffer still has; of the others it is told that they have left."""
        for group_id in sorted(group_id for group_id in self._held if not has(group_id)):
            self._held.remove(group_id)
            self._tell("left", group_id)

    def _tell(self, event: str, group_id: int, **more: Any) -> None:
        if self._is_stored(group_id):
            self._write(event, group_id, **more)

    def _write(self, event: str, group_id: int, **more: Any) -> None:
        about = {"time": self._clock(), "group_id": group_id, "event": event}
        self._events.append(about | {"policy_version": self.policy_version} | more)


def _is_said(record: RewardRecord, people: Container[str]) -> bool:
    return record.reward in people and record.state in ("ready", "failed")


def _in_order(records: Iterable[RewardRecord]) -> list[RewardRecord]:
    return sorted(records, key=lambda record: (record.sample, record.slot))


def _verdict(records: Sequence[RewardRecord]) -> dict[str, Any]:
    """One reward's records of a group, taken together."""
    values: dict[int, list[float | None]] = {}
    for record in _in_order(records):
        values.setdefault(record.sample, []).append(record.value)
    return {
        "reward": records[0].reward,
        "version": records[0].version,
        "revision": records[0].revision,
        "latency_s": max(record.latency_s for record in records),
        "states": Counter(record.state for record in records),
        "reason": next((record.reason for record in records if record.value is None), ""),
        "values": list(values.values()),
    }


def _finite(parts: Any) -> dict[str, float]:
    return {name: value for name, value in parts.items() if math.isfinite(value)}


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None


def _rows(values_GK: Tensor, valid_GK: Tensor) -> list[list[float | None]]:
    return [
        [_rounded(value) if valid else None for value, valid in zip(row, mask, strict=True)]
        for row, mask in zip(values_GK.tolist(), valid_GK.tolist(), strict=True)
    ]
