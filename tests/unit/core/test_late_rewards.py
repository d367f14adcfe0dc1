"""People's rewards in the buffer: nobody waits for them, and nothing of them is lost or doubled."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tdm_core.config import ReplayConfig
from tdm_core.replay_buffer import LateRewards, ReplayBuffer, label_weight
from tdm_core.types import RewardRecord
from tests.core_cases import rollout_group

pytestmark = pytest.mark.unit

SIZE = 2


def buffer(rewards=("r", "human"), awaited=False, revisable=False, **changes) -> ReplayBuffer:
    config = ReplayConfig(
        **({"max_staleness_generator": 1, "max_staleness_surrogate": 3} | changes)
    )
    late = LateRewards(("human",), awaited, revisable)
    return ReplayBuffer(config, rewards, num_steps=4, late=late)


def add(replay: ReplayBuffer, *group_ids: int, version: int = 0) -> None:
    for group_id in group_ids:
        replay.add(rollout_group(group_id, SIZE, version))


def verdict(group_id, reward, *values, state="ready", revision=0) -> list[RewardRecord]:
    values = values or (0.25, 0.75)
    return [
        RewardRecord(
            group_id,
            sample,
            0,
            reward,
            state,
            value if state == "ready" else None,
            revision=revision,
        )
        for sample, value in enumerate(values)
    ]


def judged(replay, *group_ids) -> None:
    for group_id in group_ids:
        replay.attach_rewards(verdict(group_id, "r"))


def labelled(replay, group_id, *values, revision=1, state="ready") -> list[int]:
    return replay.attach_rewards(
        verdict(group_id, "human", *values, revision=revision, state=state)
    )


def drawn(replay, version=0, count=1):
    groups = replay.draw_rewarded(version, count)
    return None if groups is None else [(g.group.group_id, g.revision) for g in groups]


def held(replay) -> list[int]:
    return sorted(fact["group_id"] for fact in replay.state_dict()["facts"]["groups"])


def test_a_group_trains_on_the_automatic_reward_first_and_again_when_the_labels_come():
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    (first,) = replay.draw_rewarded(0, 1)
    assert first.valid_RGK[:, :, 0].tolist() == [[True, True], [False, False]]
    assert drawn(replay) is None
    assert labelled(replay, 0) == [0]
    (second,) = replay.draw_rewarded(0, 1)
    assert second.revision == first.revision + 1
    assert second.valid_RGK.all()
    assert drawn(replay) is None


def test_labels_that_come_first_wait_for_the_automatic_reward():
    replay = buffer()
    add(replay, 0)
    assert labelled(replay, 0) == []
    assert drawn(replay) is None
    judged(replay, 0)
    assert drawn(replay) == [(0, 1)]


@pytest.mark.parametrize("state", ["expired", "failed"])
def test_labels_that_never_come_are_no_reason_to_train_again(state):
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    assert drawn(replay) == [(0, 1)]
    assert labelled(replay, 0, state=state) == []
    assert drawn(replay) is None


def test_a_group_whose_only_value_was_taken_back_is_not_trained_on_until_it_has_one():
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    replay.attach_rewards(verdict(0, "r", state="failed"))
    assert drawn(replay) is None
    assert labelled(replay, 0) == [0]
    assert drawn(replay) == [(0, 2)]


def test_a_run_of_people_alone_waits_for_their_labels_and_for_nothing_that_expired():
    replay = buffer(rewards=("human",))
    add(replay, 0, 1)
    assert drawn(replay) is None
    labelled(replay, 0, state="expired")
    assert drawn(replay) is None
    assert labelled(replay, 1) == [1]
    assert drawn(replay) == [(1, 1)]


def test_a_group_may_have_to_wait_until_it_is_let_go():
    replay = buffer(awaited=True)
    add(replay, 0, 1)
    judged(replay, 0, 1)
    assert drawn(replay) is None
    assert replay.pending() == [0, 1]
    assert replay.stop_waiting([0, 7]) == [0]
    assert drawn(replay) == [(0, 1)]
    assert labelled(replay, 0) == [0]
    assert drawn(replay) == [(0, 2)]
    assert labelled(replay, 1, state="expired") == [1]
    assert drawn(replay) == [(1, 1)]


def test_letting_a_group_go_that_waits_for_nobody_trains_it_no_second_time():
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    drawn(replay)
    assert replay.stop_waiting([0]) == []
    assert replay.give_up([0]) == []
    assert drawn(replay) is None


def test_giving_people_up_settles_their_reward_and_still_takes_a_verdict():
    replay = buffer(awaited=True)
    add(replay, 0)
    judged(replay, 0)
    assert replay.give_up([0]) == [0]
    assert replay.pending() == []
    assert drawn(replay) == [(0, 1)]
    assert labelled(replay, 0) == [0]
    assert drawn(replay) == [(0, 2)]


# Age


@pytest.mark.parametrize(
    ("staleness", "weight"), [(-1, 1.0), (0, 1.0), (64, 0.5), (128, 0.25), (1000, 0.1)]
)
def test_the_weight_halves_and_has_a_floor(staleness, weight):
    assert label_weight(staleness, ReplayConfig()) == weight


def test_labelled_groups_stay_drawable_at_a_falling_weight():
    replay = buffer()
    add(replay, 0, 1)
    judged(replay, 0, 1)
    labelled(replay, 0)
    assert drawn(replay, version=32, count=2) is None
    (group,) = replay.draw_rewarded(32, 1)
    assert group.group.group_id == 0
    assert group.weight == pytest.approx(2**-0.5)


def test_a_group_that_nobody_labelled_weighs_as_ever():
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    assert replay.draw_rewarded(3, 1)[0].weight == 1.0


def test_labelled_groups_may_have_a_greatest_age():
    replay = buffer(max_staleness_labelled=5)
    add(replay, 0, 1)
    judged(replay, 0, 1)
    labelled(replay, 0)
    assert replay.num_ready(5)["labelled"] == 1
    assert replay.num_ready(6)["labelled"] == 0
    assert replay.evict(5) == 0
    assert replay.evict(6) == 2  # nobody could use the pending one either


def test_labelled_groups_are_drawn_before_younger_ones():
    replay = buffer()
    add(replay, 0, version=0)
    add(replay, 1, 2, version=3)
    judged(replay, 0, 1, 2)
    labelled(replay, 0)
    assert drawn(replay, version=3, count=2) == [(0, 2 - 1 + 1), (1, 1)]


# Keeping


def used(replay, *group_ids) -> None:
    """Judged, and drawn by both readers."""
    add(replay, *group_ids)
    judged(replay, *group_ids)
    replay.draw_rewarded(0, len(group_ids))
    replay.draw_fresh(0, len(group_ids))


def test_a_group_is_kept_while_people_may_still_judge_it():
    replay = buffer()
    used(replay, 0, 1)
    assert replay.evict(50) == 0
    labelled(replay, 0)
    labelled(replay, 1, state="expired")
    assert replay.evict(50) == 1
    assert drawn(replay, 50) == [(0, 2)]
    assert replay.evict(50) == 1


def test_a_group_without_its_automatic_reward_is_not_kept_for_people():
    replay = buffer()
    add(replay, 0)
    replay.draw_fresh(0, 1)
    assert replay.evict(4) == 1


def test_a_trained_group_is_kept_for_later_verdicts_only_if_they_are_wanted():
    for revisable, left in ((False, []), (True, [0])):
        replay = buffer(revisable=revisable)
        used(replay, 0)
        labelled(replay, 0)
        drawn(replay)
        replay.evict(20)
        assert held(replay) == left
    assert labelled(replay, 0, 0.5, 0.9, revision=2) == [0]
    assert drawn(replay, 20) == [(0, 3)]


def test_a_full_buffer_drops_what_it_keeps_for_later_verdicts_before_what_is_unused():
    replay = buffer(revisable=True, capacity_groups=3)
    used(replay, 0, 1, 2)
    labelled(replay, 2)
    drawn(replay)
    add(replay, 3)
    assert held(replay) == [0, 1, 3]  # 2 was trained on; 0 and 1 are still with people
    add(replay, 4)
    assert held(replay) == [1, 3, 4]


# Deliveries


def test_an_older_verdict_never_replaces_a_newer():
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    labelled(replay, 0, 0.1, 0.9, revision=3)
    drawn(replay)
    assert labelled(replay, 0, 0.4, 0.6, revision=2) == []
    assert labelled(replay, 0, 0.1, 0.9, revision=3) == []
    assert labelled(replay, 0, 0.1, 0.9, revision=4) == []  # says the same again
    assert labelled(replay, 0, 0.2, 0.8, revision=5) == [0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_whatever_the_order_of_deliveries_the_newest_stands_and_trains_once(deliveries, data):
    replay = buffer()
    add(replay, 0)
    judged(replay, 0)
    drawn(replay)
    trained = []
    for revision in deliveries:
        labelled(replay, 0, revision / 10, revision / 5, revision=revision)
        if data.draw(st.booleans()):
            groups = replay.draw_rewarded(0, 1) or []
            trained += [group.rewards_RGK[1, 0, 0].item() for group in groups]
    groups = replay.draw_rewarded(0, 1) or []
    trained += [group.rewards_RGK[1, 0, 0].item() for group in groups]
    assert trained == sorted(set(trained))
    assert trained[-1] == max(deliveries) / 10


def test_a_restored_buffer_remembers_verdicts_and_who_waits():
    replay, restored = buffer(awaited=True), buffer(awaited=True)
    add(replay, 0, 1, 2)
    judged(replay, 0, 1, 2)
    replay.stop_waiting([1])
    labelled(replay, 0, revision=3)
    state = replay.state_dict()
    facts = json.loads(json.dumps(state["facts"]))
    restored.load_state_dict({"tensors": state["tensors"], "facts": facts})
    assert restored.pending() == replay.pending() == [1, 2]
    assert labelled(restored, 0, 0.0, 1.0, revision=2) == []
    assert restored.num_ready(9) == replay.num_ready(9)
    assert drawn(restored, count=2) == drawn(replay, count=2) == [(0, 1), (1, 1)]


def test_counts_tell_what_people_have_and_what_they_gave():
    replay = buffer()
    add(replay, 0, 1)
    judged(replay, 0, 1)
    labelled(replay, 0)
    ready = replay.num_ready(0)
    assert (ready["pending"], ready["labelled"], ready["rewarded"]) == (1, 1, 2)


class LateMachine(RuleBasedStateMachine):
    """Rollouts, judges, people and both readers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.version = self.next_id = 0
        self.trained: dict[int, int] = {}
        self.replay = buffer(awaited=False, revisable=True, capacity_groups=6, max_reuse=1)

    def some(self, pick: float) -> int:
        return int(pick * self.next_id)

    @rule()
    def generate(self) -> None:
        add(self.replay, self.next_id, version=self.version)
        self.next_id += 1

    @rule()
    def publish(self) -> None:
        self.version += 1

    @precondition(lambda self: self.next_id)
    @rule(pick=st.floats(0, 0.999), state=st.sampled_from(["ready", "ready", "failed"]))
    def judge(self, pick, state) -> None:
        self.replay.attach_rewards(verdict(self.some(pick), "r", state=state))

    @precondition(lambda self: self.next_id)
    @rule(
        pick=st.floats(0, 0.999),
        state=st.sampled_from(["ready", "ready", "expired", "pending"]),
        revision=st.integers(0, 3),
    )
    def label(self, pick, state, revision) -> None:
        value = revision / 4
        labelled(self.replay, self.some(pick), value, 1 - value, revision=revision, state=state)

    @precondition(lambda self: self.next_id)
    @rule(pick=st.floats(0, 0.999))
    def give_up(self, pick) -> None:
        self.replay.give_up([self.some(pick)])

    @rule()
    def draw_fresh(self) -> None:
        self.replay.draw_fresh(self.version, 1)

    @rule()
    def draw_rewarded(self) -> None:
        for drawn in self.replay.draw_rewarded(self.version, 1) or []:
            group_id = drawn.group.group_id
            assert drawn.revision > self.trained.get(group_id, 0)
            self.trained[group_id] = drawn.revision
            assert drawn.valid_RGK.any()
            is_labelled = bool(drawn.valid_RGK[1].any())
            age = self.version - drawn.group.policy_version
            assert drawn.weight == (max(0.1, 2 ** (-age / 64)) if is_labelled else 1.0)
            assert is_labelled or age <= 3

    @rule()
    def evict(self) -> None:
        pending = self.replay.pending()
        self.replay.evict(self.version)
        assert self.replay.pending() == pending

    @rule()
    def restart(self) -> None:
        state = self.replay.state_dict()
        self.replay = buffer(awaited=False, revisable=True, capacity_groups=6, max_reuse=1)
        self.replay.load_state_dict(state)

    @invariant()
    def is_bounded_and_consistent(self) -> None:
        ready = self.replay.num_ready(self.version)
        assert ready["held"] <= 6
        assert ready["labelled"] <= ready["rewarded"] <= ready["held"]


TestLateMachine = LateMachine.TestCase
TestLateMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
