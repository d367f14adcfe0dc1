"""Two readers over one buffer: bounds, revisions, eviction, exact state."""

import json

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tdm_core.config import ReplayConfig
from tdm_core.replay_buffer import ReplayBuffer
from tdm_core.types import RewardRecord
from tests.core_cases import rollout_group

pytestmark = pytest.mark.unit

SIZE = 2


def buffer(num_slots=1, rewards=("r",), **changes) -> ReplayBuffer:
    settings_of = {"max_staleness_generator": 1, "max_staleness_surrogate": 3} | changes
    return ReplayBuffer(ReplayConfig(**settings_of), rewards, num_steps=4, num_slots=num_slots)


def add(replay: ReplayBuffer, group_id: int, version: int = 0) -> None:
    replay.add(rollout_group(group_id, SIZE, version))


def record(group_id, sample, value=1.0, slot=0, reward="r", state="ready") -> RewardRecord:
    value = value if state == "ready" else None
    return RewardRecord(group_id, sample, slot, reward, state, value)


def judge(replay, group_id, *values, state="ready") -> list[int]:
    values = values or (0.0, 1.0)
    return replay.attach_rewards(
        [record(group_id, i, value, state=state) for i, value in enumerate(values)]
    )


def ids(drawn) -> list[int] | None:
    return None if drawn is None else [getattr(g, "group", g).group_id for g in drawn]


def test_the_generator_never_waits_for_rewards():
    replay = buffer()
    add(replay, 0)
    assert ids(replay.draw_fresh(0, 1)) == [0]
    assert replay.draw_rewarded(0, 1) is None


def test_the_generator_draws_the_oldest_first_and_each_once():
    replay = buffer()
    for group_id in (2, 0, 1):
        add(replay, group_id)
    assert ids(replay.draw_fresh(0, 2)) == [0, 1]
    assert replay.draw_fresh(0, 2) is None
    assert ids(replay.draw_fresh(0, 1)) == [2]


def test_too_few_groups_draw_nothing_and_cost_nothing():
    replay = buffer()
    add(replay, 0)
    judge(replay, 0)
    assert replay.draw_fresh(0, 2) is None
    assert replay.draw_rewarded(0, 2) is None
    assert replay.num_ready(0) | {"bytes": 0} == {
        "held": 1,
        "fresh": 1,
        "rewarded": 1,
        "bytes": 0,
    }


def test_a_group_may_be_reused_as_often_as_allowed():
    replay = buffer(max_reuse=3)
    add(replay, 0)
    assert [ids(replay.draw_fresh(0, 1)) for _ in range(4)] == [[0], [0], [0], None]


@pytest.mark.parametrize(("version", "drawn"), [(5, [0]), (6, [0]), (7, None)])
def test_the_generators_staleness_holds_at_the_draw(version, drawn):
    replay = buffer(max_staleness_generator=1)
    add(replay, 0, version=5)
    assert ids(replay.draw_fresh(version, 1)) == drawn


@pytest.mark.parametrize(("version", "drawn"), [(5, [0]), (8, [0]), (9, None)])
def test_the_surrogates_staleness_holds_at_the_draw(version, drawn):
    replay = buffer(max_staleness_surrogate=3)
    add(replay, 0, version=5)
    judge(replay, 0)
    assert ids(replay.draw_rewarded(version, 1)) == drawn


def test_a_group_that_grew_old_in_flight_is_stored_but_never_drawn():
    replay = buffer()
    add(replay, 0, version=1)
    judge(replay, 0)
    assert replay.draw_fresh(9, 1) is None
    assert replay.draw_rewarded(9, 1) is None
    assert replay.evict(9) == 1
    assert replay.num_ready(9)["held"] == 0


def test_on_policy_both_readers_get_the_same_groups():
    replay = buffer(max_staleness_generator=0, max_staleness_surrogate=0)
    for group_id in (3, 1, 2):
        add(replay, group_id, version=4)
        judge(replay, group_id)
    assert ids(replay.draw_fresh(4, 3)) == ids(replay.draw_rewarded(4, 3)) == [1, 2, 3]
    assert replay.evict(5) == 3


def test_the_surrogate_draws_the_youngest_groups():
    replay = buffer()
    for group_id, version in ((0, 0), (1, 2), (2, 1), (3, 2)):
        add(replay, group_id, version)
        judge(replay, group_id)
    assert ids(replay.draw_rewarded(2, 3)) == [1, 2, 3]


def test_a_group_is_rewarded_only_when_every_sample_slot_and_reward_has_spoken():
    replay = buffer(num_slots=4, rewards=("r", "q"))
    add(replay, 0)
    everything = [
        record(0, sample, slot=slot, reward=reward)
        for sample in range(SIZE)
        for slot in range(4)
        for reward in ("r", "q")
    ]
    assert replay.attach_rewards(everything[:-1]) == []
    assert replay.draw_rewarded(0, 1) is None
    assert replay.attach_rewards(everything[-1:]) == [0]
    (drawn,) = replay.draw_rewarded(0, 1)
    assert drawn.rewards_RGK.shape == (2, SIZE, 4)
    assert drawn.revision == 1


def test_pending_changes_nothing():
    replay = buffer()
    add(replay, 0)
    assert judge(replay, 0, state="pending") == []
    assert replay.draw_rewarded(0, 1) is None
    judge(replay, 0)
    assert judge(replay, 0, state="pending") == []
    assert replay.draw_rewarded(0, 1)[0].valid_RGK.all()


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_failed_and_expired_settle_a_sample_without_a_number(state):
    replay = buffer()
    add(replay, 0)
    replay.attach_rewards([record(0, 0, 2.0), record(0, 1, state=state)])
    (drawn,) = replay.draw_rewarded(0, 1)
    assert drawn.valid_RGK[0, :, 0].tolist() == [True, False]
    assert drawn.rewards_RGK[0, 0].tolist() == [2.0] * 4
    assert drawn.rewards_RGK[0, 1].isnan().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_a_failure(value):
    replay = buffer()
    add(replay, 0)
    judge(replay, 0, 1.0, value)
    (drawn,) = replay.draw_rewarded(0, 1)
    assert drawn.valid_RGK[0, :, 0].tolist() == [True, False]


def test_gains_are_formed_at_the_draw():
    replay = buffer(num_slots=4)
    add(replay, 0)
    replay.attach_rewards(
        record(0, sample, float(value), slot)
        for sample in range(SIZE)
        for slot, value in enumerate((1, 2, 4, 7))
    )
    (drawn,) = replay.draw_rewarded(0, 1)
    assert drawn.rewards_RGK[0, 0].tolist() == [1, 1, 2, 3]


def test_a_revision_is_trained_on_at_most_once_and_a_later_one_again():
    replay = buffer()
    add(replay, 0)
    assert judge(replay, 0) == [0]
    assert replay.draw_rewarded(0, 1)[0].revision == 1
    assert replay.draw_rewarded(0, 1) is None
    assert judge(replay, 0, 0.0, 5.0) == [0]
    again = replay.draw_rewarded(0, 1)[0]
    assert again.revision == 2
    assert again.rewards_RGK[0, 1, 0].item() == 5.0
    assert replay.draw_rewarded(0, 1) is None


def test_two_revisions_between_draws_are_trained_on_once():
    replay = buffer()
    add(replay, 0)
    judge(replay, 0)
    judge(replay, 0, 3.0, 4.0)
    assert replay.draw_rewarded(0, 1)[0].revision == 2
    assert replay.draw_rewarded(0, 1) is None


@pytest.mark.parametrize(
    "states", [("ready", "ready"), ("failed", "failed"), ("failed", "expired")]
)
def test_the_same_verdict_delivered_twice_is_no_revision(states):
    replay = buffer()
    add(replay, 0)
    judge(replay, 0, state=states[0])
    replay.draw_rewarded(0, 1)
    assert judge(replay, 0, state=states[1]) == []
    assert replay.draw_rewarded(0, 1) is None


def test_a_late_record_is_counted_and_dropped():
    replay = buffer()
    assert replay.attach_rewards([record(7, 0), record(7, 1)]) == []
    assert replay.counts.late_records == 2


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (record(0, 0, reward="other"), "this buffer knows r"),
        (record(0, SIZE), "sample 2"),
        (record(0, -1), "sample -1"),
        (record(0, 0, slot=1), "slot 1"),
    ],
)
def test_a_record_that_fits_nowhere_is_refused(bad, named):
    replay = buffer()
    add(replay, 0)
    with pytest.raises(ValueError, match=named):
        replay.attach_rewards([bad])


def test_a_group_is_added_once():
    replay = buffer()
    add(replay, 0)
    with pytest.raises(ValueError, match="ids are unique"):
        add(replay, 0)


def test_a_full_buffer_lets_the_oldest_go_and_counts_what_was_lost():
    replay = buffer(capacity_groups=2)
    for group_id in range(3):
        add(replay, group_id)
    assert ids(replay.draw_fresh(0, 2)) == [1, 2]
    assert (replay.counts.added, replay.counts.dropped_unused) == (3, 1)
    assert replay.counts.dropped_unrewarded == 1


def test_eviction_keeps_what_either_reader_may_still_want():
    replay = buffer()
    for group_id in (0, 1, 2):
        add(replay, group_id)
    replay.draw_fresh(0, 2)
    for group_id in (0, 2):
        judge(replay, group_id)
    replay.draw_rewarded(0, 2)
    # 0 has served both readers; 1 may still be rewarded; 2 may still be drawn by the generator.
    assert replay.evict(0) == 1
    assert [fact["group_id"] for fact in replay.state_dict()["facts"]["groups"]] == [1, 2]


def test_an_old_group_without_rewards_leaves_when_the_surrogate_may_not_have_it():
    replay = buffer()
    add(replay, 0)
    replay.draw_fresh(0, 1)
    assert [replay.evict(version) for version in (1, 3, 4)] == [0, 0, 1]


def busy() -> ReplayBuffer:
    replay = buffer(max_reuse=2)
    for group_id in range(6):
        add(replay, group_id, version=group_id // 2)
    for group_id in (0, 2, 3, 5):
        judge(replay, group_id, float(group_id), float("nan"))
    replay.attach_rewards([record(1, 0), record(99, 0)])
    replay.draw_fresh(2, 2)
    replay.draw_rewarded(2, 2)
    judge(replay, 5, 9.0, 8.0)
    return replay


def history(replay: ReplayBuffer) -> list:
    """What the readers get from here on, to the last value."""
    seen = []
    for version in (2, 2, 3, 4):
        for group in replay.draw_fresh(version, 2) or []:
            seen.append((group.group_id, group.trajectory.boundaries_GKCHW.sum().item()))
        for drawn in replay.draw_rewarded(version, 1) or []:
            values = drawn.rewards_RGK.nan_to_num(-1).tolist()
            seen.append((drawn.group.group_id, drawn.revision, values))
        judge(replay, 1, float(version), 2.0)
        seen.append((replay.evict(version), replay.num_ready(version), vars(replay.counts).copy()))
    return seen


def test_a_restored_buffer_goes_on_identically():
    state = busy().state_dict()
    restored = buffer(max_reuse=2)
    facts = json.loads(json.dumps(state["facts"]))
    tensors = {name: value.clone() for name, value in state["tensors"].items()}
    restored.load_state_dict({"tensors": tensors, "facts": facts})
    expected = history(busy())
    assert len(expected) > 8
    assert history(restored) == expected


def test_a_restored_group_is_whole():
    replay = buffer()
    add(replay, 3, version=1)
    restored = buffer()
    restored.load_state_dict(replay.state_dict())
    (before,), (after,) = replay.draw_fresh(1, 1), restored.draw_fresh(1, 1)
    assert after.prompt == before.prompt
    assert after.policy_version == 1
    assert after.trajectory.sigmas == before.trajectory.sigmas
    assert torch.equal(after.trajectory.boundaries_GKCHW, before.trajectory.boundaries_GKCHW)
    assert torch.equal(after.conditioning["label"], before.conditioning["label"])


def test_a_snapshot_does_not_move_with_later_records():
    replay = buffer()
    add(replay, 0)
    state = replay.state_dict()
    judge(replay, 0)
    restored = buffer()
    restored.load_state_dict(state)
    assert restored.draw_rewarded(0, 1) is None


class Interleavings(RuleBasedStateMachine):
    """Any order of adds, verdicts, draws, evictions and restarts; the bounds always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.replay = self.fresh_buffer()
        self.version = 0
        self.born: dict[int, int] = {}
        self.draws: dict[int, int] = {}
        self.trained: set[tuple[int, int]] = set()

    @staticmethod
    def fresh_buffer() -> ReplayBuffer:
        return buffer(capacity_groups=5, max_reuse=2)

    @rule(lag=st.integers(0, 4))
    def add(self, lag) -> None:
        group_id = len(self.born)
        self.born[group_id] = max(0, self.version - lag)
        add(self.replay, group_id, self.born[group_id])

    @precondition(lambda self: self.born)
    @rule(data=st.data(), state=st.sampled_from(["ready", "failed", "pending", "expired"]))
    def judge(self, data, state) -> None:
        group_id = data.draw(st.integers(0, len(self.born) - 1))
        sample = data.draw(st.integers(0, SIZE - 1))
        value = data.draw(st.sampled_from([0.0, 1.0, float("nan")]))
        self.replay.attach_rewards([record(group_id, sample, value, state=state)])

    @precondition(lambda self: self.born)
    @rule(data=st.data(), value=st.floats(0, 1))
    def judge_whole(self, data, value) -> None:
        judge(self.replay, data.draw(st.integers(0, len(self.born) - 1)), 0.0, value)

    @rule()
    def publish(self) -> None:
        self.version += 1

    @rule(count=st.integers(1, 3))
    def draw_fresh(self, count) -> None:
        ready = self.replay.num_ready(self.version)["fresh"]
        drawn = self.replay.draw_fresh(self.version, count)
        assert (drawn is None) == (ready < count)
        assert len({g.group_id for g in drawn or []}) == len(drawn or [])
        for group in drawn or []:
            assert self.version - self.born[group.group_id] <= 1
            self.draws[group.group_id] = self.draws.get(group.group_id, 0) + 1
            assert self.draws[group.group_id] <= 2

    @rule(count=st.integers(1, 3))
    def draw_rewarded(self, count) -> None:
        ready = self.replay.num_ready(self.version)["rewarded"]
        drawn = self.replay.draw_rewarded(self.version, count)
        assert (drawn is None) == (ready < count)
        for rewarded in drawn or []:
            assert self.version - self.born[rewarded.group.group_id] <= 3
            key = (rewarded.group.group_id, rewarded.revision)
            assert key not in self.trained
            self.trained.add(key)
            assert torch.equal(rewarded.valid_RGK, torch.isfinite(rewarded.rewards_RGK))

    @rule()
    def evict(self) -> None:
        before = self.replay.num_ready(self.version)
        gone = self.replay.evict(self.version)
        after = self.replay.num_ready(self.version)
        assert after["held"] == before["held"] - gone
        assert (after["fresh"], after["rewarded"]) == (before["fresh"], before["rewarded"])

    @rule()
    def restart(self) -> None:
        state = self.replay.state_dict()
        self.replay = self.fresh_buffer()
        self.replay.load_state_dict(state)

    @invariant()
    def never_over_capacity(self) -> None:
        assert self.replay.num_ready(self.version)["held"] <= 5


Interleavings.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestInterleavings = Interleavings.TestCase
TestInterleavings.pytestmark = [pytest.mark.unit]
