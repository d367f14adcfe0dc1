"""Trajectories with per-step rewards, and two readers.

`draw_fresh` (fake score, generator) gives young groups, rewarded or not, at most `max_reuse` times
each. `draw_rewarded` (surrogate) gives groups whose rewards have arrived, each reward revision at
most once, younger first. So a slow reward costs the surrogate freshness and the generator nothing.
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


@dataclass
class _Entry:
    """A stored group and what has happened to it."""

    group: RolloutGroup
    rewards_RGS: Tensor
    """float64, NaN where there is no value."""
    settled_RGS: Tensor
    """bool: a record has arrived that is not pending."""
    revision: int = 0
    trained_revision: int = 0
    num_draws: int = 0

    @property
    def rewarded(self) -> bool:
        return bool(self.settled_RGS.all())


@dataclass
class ReplayCounts:
    """Running totals since the buffer was made."""

    added: int = 0
    late_records: int = 0
    dropped_unrewarded: int = 0
    dropped_unused: int = 0


class ReplayBuffer:
    """Holds whole groups; nothing here knows time, processes or disks."""

    def __init__(
        self, config: ReplayConfig, reward_names: Sequence[str], num_steps: int, num_slots: int = 1
    ) -> None:
        """`num_slots`: S, rewards a sample: 1 (terminal) or K (gain)."""
        self.config = config
        self.reward_names = tuple(reward_names)
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
        )
        self.counts.added += 1
        while len(self._entries) > self.config.capacity_groups:
            self._drop(min(self._entries))

    def attach_rewards(self, records: Iterable[RewardRecord]) -> list[int]:
        """Join records to their groups; gives the groups that became whole or changed.

        A record for a group that has left is counted and dropped. `pending` changes nothing, and
        neither does a record that says again what is known: a repeated delivery is no revision.
        """
        changed: set[int] = set()
        for record in records:
            entry = self._entries.get(record.group_id)
            if entry is None:
                self.counts.late_records += 1
            elif record.state != "pending" and self._settle(entry, record):
                changed.add(record.group_id)
        revised = [gid for gid in sorted(changed) if self._entries[gid].rewarded]
        for group_id in revised:
            self._entries[group_id].revision += 1
        return revised

    def _settle(self, entry: _Entry, record: RewardRecord) -> bool:
        """Write one verdict; whether anything changed. A value that is not finite is a failure."""
        place = self._place(entry, record)
        known, settled = float(entry.rewards_RGS[place]), bool(entry.settled_RGS[place])
        value = record.value if record.value is not None else math.nan
        value = value if math.isfinite(value) else math.nan
        entry.rewards_RGS[place] = value
        entry.settled_RGS[place] = True
        return not settled or (value != known and not (math.isnan(value) and math.isnan(known)))

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
        """`num_groups` rewarded groups for the surrogate, youngest first; None when too few."""
        ready = [e for e in self._entries.values() if self._is_trainable(e, policy_version)]
        if len(ready) < num_groups:
            return None
        youngest = sorted(ready, key=lambda e: (-e.group.policy_version, e.group.group_id))
        drawn = sorted(youngest[:num_groups], key=lambda e: e.group.group_id)
        for entry in drawn:
            entry.trained_revision = entry.revision
        return [self._rewarded(entry) for entry in drawn]

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
        """Groups held, and those that each reader could draw now; also bytes of latents."""
        entries = self._entries.values()
        return {
            "held": len(self._entries),
            "fresh": sum(self._is_fresh(e, policy_version) for e in entries),
            "rewarded": sum(self._is_trainable(e, policy_version) for e in entries),
            "bytes": sum(e.group.num_bytes for e in entries),
        }

    def _staleness(self, entry: _Entry, policy_version: int) -> int:
        return policy_version - entry.group.policy_version

    def _is_fresh(self, entry: _Entry, policy_version: int) -> bool:
        young = self._staleness(entry, policy_version) <= self.config.max_staleness_generator
        return young and entry.num_draws < self.config.max_reuse

    def _is_trainable(self, entry: _Entry, policy_version: int) -> bool:
        young = self._staleness(entry, policy_version) <= self.config.max_staleness_surrogate
        return young and entry.rewarded and entry.trained_revision < entry.revision

    def _is_finished(self, entry: _Entry, policy_version: int) -> bool:
        """Whether the surrogate has trained on it, or has lost the right to."""
        too_old = self._staleness(entry, policy_version) > self.config.max_staleness_surrogate
        return too_old or 0 < entry.revision == entry.trained_revision

    def _drop(self, group_id: int) -> None:
        entry = self._entries.pop(group_id)
        self.counts.dropped_unrewarded += not entry.rewarded
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

    def _rewarded(self, entry: _Entry) -> RewardedGroup:
        rewards = per_step_rewards(entry.rewards_RGS, self.num_steps)
        return RewardedGroup(entry.group, rewards, ~rewards.isnan(), entry.revision)

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
                fact["revision"],
                fact["trained_revision"],
                fact["num_draws"],
            )
        self.counts = ReplayCounts(**state["facts"]["counts"])
