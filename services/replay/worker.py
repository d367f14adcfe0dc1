"""The replay buffer as a worker: groups come in, batches go out, the controller sees counts.

It remembers the newest policy version it was told of, so every count is of what may be drawn now.
It also has the clock that ends the waiting for people. What happens to groups whose images are
stored is told from here, where it is known (services/replay/history.py).
"""

import math
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.config import RunConfig
from services.replay.history import Event, GroupHistory
from services.replay.learned_labels import LearnedLabels
from tdm_core.advantages import AdvantageNormaliser
from tdm_core.batches import fresh_batch, rewarded_batch
from tdm_core.replay_buffer import LateRewards, ReplayBuffer
from tdm_core.types import FreshBatch, RewardedBatch, RewardRecord, RewardState, RolloutGroup

Counts = dict[str, float]

AGES = (0, 1, 2, 4, 8, 16, 32, 64, math.inf)
"""A drawn group is counted at the first of these versions that it is not older than."""
GRACE_S = 120.0
"""How much later than the deadline a group is given up that nobody has told the end of."""


class ReplayWorker:
    """Owns the run's one buffer and the advantages' rolling statistics."""

    def __init__(self, config: RunConfig, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        algorithm = config.algorithm
        num_steps = algorithm.sampler.num_steps
        self.human = config.human_reward.human if config.human_reward else None
        self.num_groups, self.group_size = algorithm.num_groups, algorithm.group_size
        self.reward_names = config.reward_names
        self.buffer = ReplayBuffer(
            algorithm.replay,
            self.reward_names,
            num_steps,
            num_slots=num_steps if algorithm.advantages.per_step == "gain" else 1,
            late=_late_rewards(config),
        )
        floors = [reward.human.std_floor if reward.human else 0.0 for reward in config.rewards]
        self.normaliser = AdvantageNormaliser(algorithm.advantages, config.reward_weights, floors)
        self.history = GroupHistory(config.is_stored, self.buffer.late.names, time.time)
        self.labels = LearnedLabels(self.buffer.late.names)
        self.policy_version = 0
        self._drawn: defaultdict[str, float] = defaultdict(float)
        self._change = 0
        self._clock = clock
        self._pending_since: dict[int, float] = {}
        self._versions: defaultdict[str, set[str]] = defaultdict(set)

    def reconfigure(self, config: RunConfig) -> None:
        """Draw by another staleness from now on."""
        self.buffer.config = config.algorithm.replay

    def add(self, groups: Sequence[RolloutGroup]) -> Counts:
        """Store rollouts; counts, with `added_version`, the version that made the oldest."""
        for group in groups:
            self.buffer.add(group)
        self.history.generated(groups)
        oldest = min(group.policy_version for group in groups)
        return self.counts() | {"added_version": oldest}

    def attach_rewards(self, records: Sequence[RewardRecord]) -> Counts:
        """Join rewards to their groups; counts."""
        for record in records:
            if record.state == "ready":
                self._versions[record.reward].add(record.version)
        self.buffer.attach_rewards(records)
        self.history.judged(records, self.buffer.made_by)
        self.labels.heard(records)
        return self.counts()

    def attach_missing(
        self, group_id: int, reward: str, state: RewardState, reason: str
    ) -> tuple[list[RewardRecord], Counts]:
        """Join records of a group that this reward will not judge; they, and counts."""
        records = [
            RewardRecord(group_id, sample, slot, reward, state, None, reason=reason)
            for sample in range(self.group_size)
            for slot in range(self.buffer.num_slots)
        ]
        return records, self.attach_rewards(records)

    def draw_fresh(self, policy_version: int) -> FreshBatch | None:
        """The generator's next batch; None when too few groups are young enough."""
        self._see(policy_version)
        groups = self.buffer.draw_fresh(policy_version, self.num_groups)
        if groups is None:
            return None
        self._note("generator", [group.policy_version for group in groups])
        self.history.drawn_by_generator(groups)
        return fresh_batch(groups)

    def draw_rewarded(self, policy_version: int) -> RewardedBatch | None:
        """The surrogate's next batch; None when too few groups have new rewards."""
        self._see(policy_version)
        groups = self.buffer.draw_rewarded(policy_version, self.num_groups)
        if groups is None:
            return None
        self._note("surrogate", [rewarded.group.policy_version for rewarded in groups])
        if self.human:
            self._drawn["label_weight"] = sum(rewarded.weight for rewarded in groups) / len(groups)
        self.labels.drawn(groups)
        batch = rewarded_batch(groups, self.normaliser, self.reward_names)
        advantages = self.normaliser.config
        self.history.drawn_by_surrogate(groups, batch, self.reward_names, advantages)
        return batch

    def counts(self, policy_version: int = 0) -> Counts:
        """Groups held, ready for each reader, and dropped; staleness of the last draws, and how
        many groups were drawn at which so far.

        `change` grows with every answer, so that an overtaken one can be told; `versions/NAME` is
        there once a reward has answered in more than one.
        """
        self._see(policy_version)
        if self.human:
            self._end_waits()
        self.buffer.evict(self.policy_version)
        self.history.kept(self.buffer.has)
        self.labels.kept(self.buffer.has)
        self._change += 1
        ready = self.buffer.num_ready(self.policy_version)
        several = {f"versions/{name}": len(v) for name, v in self._versions.items() if len(v) > 1}
        counts = ready | vars(self.buffer.counts) | dict(self._drawn)
        return counts | several | {"change": self._change}

    def note_surrogate(self, rewards: Mapping[int, Sequence[float]]) -> None:
        """What the surrogate itself made of the groups of its last batch, by group id."""
        self.history.seen_by_surrogate(rewards)

    def drain_history(self) -> list[Event]:
        """What has happened to groups whose images are stored, since it was last asked."""
        return self.history.drain()

    def pending(self) -> list[int]:
        """Groups that lack nothing but people's answer."""
        return self.buffer.pending()

    def _end_waits(self) -> None:
        """Let groups go that have waited long enough, and give up those that nobody answers for."""
        assert self.human is not None
        now, since = self._clock(), self._pending_since
        self._pending_since = {gid: since.get(gid, now) for gid in self.buffer.pending()}
        waited = [(gid, now - start) for gid, start in self._pending_since.items()]
        if self.human.wait == "up_to_s":
            self.buffer.stop_waiting([gid for gid, s in waited if s >= self.human.wait_s])
        self.buffer.give_up([gid for gid, s in waited if s >= self.human.deadline_s + GRACE_S])

    def _see(self, policy_version: int) -> None:
        self.policy_version = max(self.policy_version, policy_version)
        self.history.policy_version = self.policy_version

    def _note(self, reader: str, versions: Sequence[int]) -> None:
        staleness = sorted(self.policy_version - version for version in versions)
        count = len(staleness)
        self._drawn |= {
            f"staleness_{reader}_mean": sum(staleness) / count,
            f"staleness_{reader}_p50": staleness[math.ceil(0.5 * count) - 1],
            f"staleness_{reader}_p95": staleness[math.ceil(0.95 * count) - 1],
            f"staleness_{reader}_max": staleness[-1],
        }
        self._drawn[f"staleness_{reader}/sum"] += sum(staleness)
        for age in staleness:
            self._drawn[f"staleness_{reader}/{AGES[bisect_left(AGES, age)]:g}"] += 1

    def state_dict(self) -> dict[str, Any]:
        """`tensors` (part -> name -> tensor) and JSON-able `facts`: buffer, statistics, version."""
        state = self.buffer.state_dict()
        facts = {
            "buffer": state["facts"],
            "normaliser": self.normaliser.state(),
            "policy_version": self.policy_version,
            "labels": self.labels.state(),
        }
        return {"tensors": {"replay": state["tensors"]}, "facts": facts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        facts = state["facts"]
        tensors = state["tensors"]["replay"]
        self.buffer.load_state_dict({"tensors": tensors, "facts": facts["buffer"]})
        self.normaliser.load_state(facts["normaliser"])
        self.policy_version = facts["policy_version"]
        self.labels.load_state(facts["labels"])
        self.history.hold(self.buffer.held())


def _late_rewards(config: RunConfig) -> LateRewards:
    reward = config.human_reward
    human = reward.human if reward else None
    if reward is None or human is None:
        return LateRewards()
    return LateRewards((reward.name,), human.wait != "never", human.late_labels == "revise")
