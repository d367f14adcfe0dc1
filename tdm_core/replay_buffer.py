"""Trajectories with per-step rewards, and two readers.

`draw_fresh` (fake score, generator) gives young groups, rewarded or not, at most `max_reuse` times
each. `draw_rewarded` (surrogate) gives groups whose rewards have arrived, each reward revision at
most once, younger first. So a slow reward costs the surrogate freshness and the generator nothing.

People's rewards are late: a group may be trained on without them and, when they come, again as a
new revision. A group that people labelled stays drawable long after, at a weight that falls with
its age:  weight = max(min_label_weight, 2^(-staleness / label_half_life)).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdm_core.advantages import per_step_rewards
from tdm_core.config import ReplayConfig
from tdm_core.types import Prompt, RewardedGroup, RewardRecord, RolloutGroup, Trajectory


@dataclass(frozen=True)
class LateRewards:
    """Which rewards people give, and what a group does meanwhile."""

    names: tuple[str, ...] = ()
    """Rewards that may arrive long after the group."""
    awaited: bool = False
    """Whether a group waits for them before it is trained on, until `stop_waiting` is called."""
    revisable: bool = False
    """Whether a group that was trained on them is kept for a later verdict."""


@dataclass
class _Entry:
    """A stored group and what has happened to it."""

    group: RolloutGroup
    rewards_RGS: Tensor
    """float64, NaN where there is no value."""
    settled_RGS: Tensor
    """bool: a record has arrived that is not pending."""
    verdicts_R: list[int]
    """Newest revision of each reward's own verdict."""
    waits: bool
    """Whether it is not trained on before its late rewards have arrived."""
    revision: int = 0
    trained_revision: int = 0
    num_draws: int = 0


NO_LATE_REWARDS = LateRewards()


@dataclass
class ReplayCounts:
    """Running totals since the buffer was made."""

    added: int = 0
    late_records: int = 0
    dropped_unrewarded: int = 0
    dropped_unused: int = 0


def label_weight(staleness: int, config: ReplayConfig) -> float:
    """max(min_label_weight, 2^(-s / label_half_life)): a like is a fact about an image, but the
    surrogate is asked about images that the generator makes now."""
    return max(config.min_label_weight, 2 ** (-max(staleness, 0) / config.label_half_life))


class ReplayBuffer:
    """Holds whole groups; nothing here knows time, processes or disks."""

    def __init__(
        self,
        config: ReplayConfig,
        reward_names: Sequence[str],
        num_steps: int,
        num_slots: int = 1,
        late: LateRewards = NO_LATE_REWARDS,
    ) -> None:
        """`num_slots`: S, rewards a sample: 1 (terminal) or K (gain)."""
        self.config = config
        self.reward_names = tuple(reward_names)
        self.late = late
        self._late_R = torch.tensor([name in late.names for name in self.reward_names])
        self.num_steps = num_steps
        self.num_slots = num_slots
        self.counts = ReplayCounts()
        self._entries: dict[int, _Entry] = {}

    def add(self, group: RolloutGroup) -> None:
        """Store a rollout; the oldest group leaves when the buffer is full."""
        if group.group_id in self._entries:
            raise ValueError(f"group {group.group_id} is in the buffer already; ids are unique")
        shape = (len(self.reward_names), group.group_size, self.num_slots)
        self._entries[group.group_id] = _Entry(
            group,
            torch.full(shape, float("nan"), dtype=torch.float64),
            torch.zeros(shape, dtype=torch.bool),
            verdicts_R=[0] * len(self.reward_names),
            waits=self.late.awaited,
        )
        self.counts.added += 1
        while len(self._entries) > self.config.capacity_groups:
            self._drop(min(self._entries, key=self._claim))

    def has(self, group_id: int) -> bool:
        """Whether the group is held."""
        return group_id in self._entries

    def made_by(self, group_id: int) -> int | None:
        """The version that made a group, None unless it is held."""
        entry = self._entries.get(group_id)
        return entry.group.policy_version if entry else None

    def held(self) -> list[int]:
        """Every group that is."""
        return list(self._entries)

    def attach_rewards(self, records: Iterable[RewardRecord]) -> list[int]:
        """Join records to their groups; gives the groups that became whole or changed.

        A record for a group that has left is counted and dropped. `pending` changes nothing, and
        neither does a record that says again what is known, or one that a newer verdict of the same
        reward has overtaken: a repeated delivery is no revision.
        """
        unchanged: dict[int, bool] = {}
        for record in records:
            entry = self._entries.get(record.group_id)
            if entry is None:
                self.counts.late_records += 1
            elif record.state != "pending":
                # A group is revised when it becomes whole, or when a value of a whole one changes;
                # what people will never say of it is no reason to train on it again.
                whole = unchanged.setdefault(record.group_id, self._is_rewarded(entry))
                unchanged[record.group_id] = not self._settle(entry, record) and whole
        return self._revise([group_id for group_id, same in unchanged.items() if not same])

    def _revise(self, group_ids: Iterable[int]) -> list[int]:
        revised = [gid for gid in sorted(group_ids) if self._is_rewarded(self._entries[gid])]
        for group_id in revised:
            self._entries[group_id].revision += 1
        return revised

    def _settle(self, entry: _Entry, record: RewardRecord) -> bool:
        """Write one verdict; whether the value changed. One that is not finite is a failure."""
        place = self._place(entry, record)
        if record.revision < entry.verdicts_R[place[0]]:
            return False
        entry.verdicts_R[place[0]] = record.revision
        known = float(entry.rewards_RGS[place])
        value = record.value if record.value is not None else math.nan
        value = value if math.isfinite(value) else math.nan
        entry.rewards_RGS[place] = value
        entry.settled_RGS[place] = True
        return value != known and not (math.isnan(value) and math.isnan(known))

    def pending(self) -> list[int]:
        """Groups whose late rewards alone have not arrived, oldest first."""
        return [
            group_id
            for group_id, entry in sorted(self._entries.items())
            if self._lacks_late_only(entry)
        ]

    def stop_waiting(self, group_ids: Iterable[int]) -> list[int]:
        """Let groups be trained on without their late rewards, which may still come."""
        waiting = [self._entries[gid] for gid in group_ids if gid in self._entries]
        waiting = [entry for entry in waiting if not self._is_rewarded(entry)]
        for entry in waiting:
            entry.waits = False
        return self._revise([entry.group.group_id for entry in waiting])

    def give_up(self, group_ids: Iterable[int]) -> list[int]:
        """Take late rewards that have not arrived as expired; a verdict that comes yet counts."""
        waiting = [self._entries[gid] for gid in group_ids if gid in self._entries]
        unready = [entry for entry in waiting if not self._is_rewarded(entry)]
        for entry in waiting:
            entry.settled_RGS[self._late_R] = True
        return self._revise([entry.group.group_id for entry in unready])

    def draw_fresh(self, policy_version: int, num_groups: int) -> list[RolloutGroup] | None:
        """`num_groups` groups for the generator, oldest first; None when there are too few."""
        ready = [e for e in self._entries.values() if self._is_fresh(e, policy_version)]
        if len(ready) < num_groups:
            return None
        drawn = sorted(ready, key=lambda e: e.group.group_id)[:num_groups]
        for entry in drawn:
            entry.num_draws += 1
        return [entry.group for entry in drawn]

    def draw_rewarded(self, policy_version: int, num_groups: int) -> list[RewardedGroup] | None:
        """`num_groups` rewarded groups for the surrogate; None when too few.

        Groups that people labelled go first, since they are few; then the youngest.
        """
        ready = [e for e in self._entries.values() if self._is_trainable(e, policy_version)]
        if len(ready) < num_groups:
            return None
        ready.sort(
            key=lambda e: (not self._is_labelled(e), -e.group.policy_version, e.group.group_id)
        )
        drawn = sorted(ready[:num_groups], key=lambda e: e.group.group_id)
        for entry in drawn:
            entry.trained_revision = entry.revision
        return [self._rewarded(entry, policy_version) for entry in drawn]

    def evict(self, policy_version: int) -> int:
        """Drop groups that neither reader may draw from now on; gives how many left."""
        gone = [
            group_id
            for group_id, entry in self._entries.items()
            if not self._is_fresh(entry, policy_version)
            and self._is_finished(entry, policy_version)
        ]
        for group_id in gone:
            self._drop(group_id)
        return len(gone)

    def num_ready(self, policy_version: int) -> dict[str, int]:
        """Groups held, and those that each reader could draw now; also bytes of latents.

        Where there are late rewards also `pending`, groups that lack nothing else, and `labelled`,
        groups that the surrogate could draw and people labelled.
        """
        entries = self._entries.values()
        trainable = [e for e in entries if self._is_trainable(e, policy_version)]
        ready = {
            "held": len(self._entries),
            "fresh": sum(self._is_fresh(e, policy_version) for e in entries),
            "rewarded": len(trainable),
            "bytes": sum(e.group.num_bytes for e in entries),
        }
        if self.late.names:
            ready["pending"] = sum(self._lacks_late_only(e) for e in entries)
            ready["labelled"] = sum(self._is_labelled(e) for e in trainable)
        return ready

    def _staleness(self, entry: _Entry, policy_version: int) -> int:
        return policy_version - entry.group.policy_version

    def _is_fresh(self, entry: _Entry, policy_version: int) -> bool:
        young = self._staleness(entry, policy_version) <= self.config.max_staleness_generator
        return young and entry.num_draws < self.config.max_reuse

    def _is_rewarded(self, entry: _Entry) -> bool:
        """Whether every reward has spoken that it waits for; without a value there is none."""
        if not self.late.names or entry.waits:
            return bool(entry.settled_RGS.all()) and self._has_value(entry)
        return bool(entry.settled_RGS[~self._late_R].all()) and self._has_value(entry)

    def _has_value(self, entry: _Entry) -> bool:
        # Without late rewards a group that failed whole is drawn, and counted as without signal.
        return not self.late.names or not bool(entry.rewards_RGS.isnan().all())

    def _is_labelled(self, entry: _Entry) -> bool:
        """Whether people have given it a value."""
        return bool(self.late.names) and not bool(entry.rewards_RGS[self._late_R].isnan().all())

    def _lacks_late_only(self, entry: _Entry) -> bool:
        settled_R = entry.settled_RGS.flatten(1).all(1)
        return bool(settled_R[~self._late_R].all()) and not bool(settled_R[self._late_R].all())

    def _is_young(self, entry: _Entry, policy_version: int) -> bool:
        """Whether the surrogate may draw it at this age."""
        staleness, config = self._staleness(entry, policy_version), self.config
        if staleness <= config.max_staleness_surrogate:
            return True
        return self._is_labelled(entry) and self._may_be_labelled(staleness)

    def _may_be_labelled(self, staleness: int) -> bool:
        limit = self.config.max_staleness_labelled
        return limit is None or staleness <= limit

    def _is_trainable(self, entry: _Entry, policy_version: int) -> bool:
        # A later verdict may have taken the only value back: then nothing is left to train on.
        untrained = entry.trained_revision < entry.revision
        return untrained and self._is_rewarded(entry) and self._is_young(entry, policy_version)

    def _is_finished(self, entry: _Entry, policy_version: int) -> bool:
        """Whether the surrogate has trained on it, or has lost the right to, for good."""
        if self._may_change(entry) and self._may_be_labelled(
            self._staleness(entry, policy_version)
        ):
            return False
        too_old = not self._is_young(entry, policy_version)
        return too_old or 0 < entry.revision == entry.trained_revision

    def _may_change(self, entry: _Entry) -> bool:
        """Whether people may still say something of it."""
        revisable = self.late.revisable and self._is_labelled(entry)
        return revisable or self._lacks_late_only(entry)

    def _claim(self, group_id: int) -> tuple[bool, int]:
        """What a full buffer drops first: groups that all have used, then the oldest."""
        entry = self._entries[group_id]
        trained = 0 < entry.revision == entry.trained_revision
        used = trained and entry.num_draws >= self.config.max_reuse
        kept_for_revision = used and not self._lacks_late_only(entry) and bool(self.late.names)
        return not kept_for_revision, group_id

    def _drop(self, group_id: int) -> None:
        entry = self._entries.pop(group_id)
        self.counts.dropped_unrewarded += not entry.settled_RGS.all()
        self.counts.dropped_unused += entry.num_draws == 0

    def _place(self, entry: _Entry, record: RewardRecord) -> tuple[int, int, int]:
        """Where the record belongs in (R, G, S)."""
        if record.reward not in self.reward_names:
            raise ValueError(
                f"record of reward {record.reward!r}; this buffer knows "
                f"{', '.join(self.reward_names)}"
            )
        size = entry.group.group_size
        if not (0 <= record.sample < size and 0 <= record.slot < self.num_slots):
            raise ValueError(
                f"record of group {record.group_id} names sample {record.sample}, slot "
                f"{record.slot}; allowed are 0 to {size - 1} and 0 to {self.num_slots - 1}"
            )
        return self.reward_names.index(record.reward), record.sample, record.slot

    def _rewarded(self, entry: _Entry, policy_version: int) -> RewardedGroup:
        rewards = per_step_rewards(entry.rewards_RGS, self.num_steps)
        weight = 1.0
        if self._is_labelled(entry):
            weight = label_weight(self._staleness(entry, policy_version), self.config)
        return RewardedGroup(entry.group, rewards, ~rewards.isnan(), entry.revision, weight)

    def state_dict(self) -> dict[str, Any]:
        """`tensors` (named) and `facts` (JSON-able): everything, exactly."""
        tensors: dict[str, Tensor] = {}
        facts: list[dict[str, Any]] = []
        for group_id, entry in self._entries.items():
            group = entry.group
            named = {f"conditioning.{k}": v for k, v in group.conditioning.items()}
            named["boundaries"] = group.trajectory.boundaries_GKCHW
            # Later records write into these two in place; a snapshot must not move with them.
            named["rewards"] = entry.rewards_RGS.clone()
            named["settled"] = entry.settled_RGS.clone()
            tensors.update({f"{group_id}/{name}": value for name, value in named.items()})
            facts.append(
                {
                    "group_id": group_id,
                    "prompt_id": group.prompt.prompt_id,
                    "text": group.prompt.text,
                    "metadata": dict(group.prompt.metadata),
                    "policy_version": group.policy_version,
                    "sigmas": list(group.trajectory.sigmas),
                    "verdicts": list(entry.verdicts_R),
                    "waits": entry.waits,
                    "revision": entry.revision,
                    "trained_revision": entry.trained_revision,
                    "num_draws": entry.num_draws,
                }
            )
        return {"tensors": tensors, "facts": {"groups": facts, "counts": vars(self.counts).copy()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._entries = {}
        for fact in state["facts"]["groups"]:
            group_id = fact["group_id"]
            prefix = f"{group_id}/"
            mine = {
                name.removeprefix(prefix): value
                for name, value in state["tensors"].items()
                if name.startswith(prefix)
            }
            group = RolloutGroup(
                group_id=group_id,
                prompt=Prompt(fact["prompt_id"], fact["text"], fact["metadata"]),
                policy_version=fact["policy_version"],
                trajectory=Trajectory(mine["boundaries"], tuple(fact["sigmas"])),
                conditioning={
                    name.removeprefix("conditioning."): value
                    for name, value in mine.items()
                    if name.startswith("conditioning.")
                },
            )
            self._entries[group_id] = _Entry(
                group,
                mine["rewards"].clone(),
                mine["settled"].clone(),
                list(fact["verdicts"]),
                fact["waits"],
                fact["revision"],
                fact["trained_revision"],
                fact["num_draws"],
            )
        self.counts = ReplayCounts(**state["facts"]["counts"])
