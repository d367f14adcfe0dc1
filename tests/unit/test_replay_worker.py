"""The replay worker: counts tell what may be drawn, versions age it, state goes out and in."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from services.replay.worker import ReplayWorker
from services.rollout.worker import RolloutWorker
from tdm_core.types import ImageGroup, Prompt, RewardRecord, RolloutGroup
from tests.train_cases import toy_run

pytestmark = pytest.mark.unit

CONFIG = toy_run(
    Path("runs"),
    algorithm={
        "num_groups": 2,
        "group_size": 3,
        "replay": {"max_staleness_generator": 1, "max_staleness_surrogate": 2},
    },
)


@pytest.fixture(scope="module")
def groups() -> list[RolloutGroup]:
    """Six groups by version 0."""
    prompts = [(group_id, Prompt(f"p:{group_id}", "label 1")) for group_id in range(6)]
    made, _ = RolloutWorker(CONFIG).generate(prompts)
    return made


def records(group: RolloutGroup | ImageGroup) -> list[RewardRecord]:
    """A reward for every sample."""
    values = [0.0, 1.0, 0.5]
    return [
        RewardRecord(group.group_id, sample, 0, "upper_half", "ready", value)
        for sample, value in enumerate(values)
    ]


def test_the_generator_may_draw_before_any_reward_and_the_surrogate_after(groups) -> None:
    worker = ReplayWorker(CONFIG)
    counts = worker.add(groups[:3])
    assert (counts["fresh"], counts["rewarded"], counts["added_version"]) == (3, 0, 0)
    assert worker.draw_rewarded(0) is None
    fresh = worker.draw_fresh(0)
    assert fresh is not None
    assert fresh.group_ids == (0, 1)
    assert worker.draw_fresh(0) is None
    counts = worker.attach_rewards([record for group in groups[:2] for record in records(group)])
    assert (counts["fresh"], counts["rewarded"]) == (1, 2)
    rewarded = worker.draw_rewarded(0)
    assert rewarded is not None
    assert rewarded.fresh.group_ids == (0, 1)
    assert rewarded.statistics["reward/upper_half/mean"] == 0.5


def test_groups_age_with_the_newest_version_the_worker_was_told_of(groups) -> None:
    worker = ReplayWorker(CONFIG)
    worker.add(groups[:4])
    assert worker.counts(1)["fresh"] == 4
    worker.draw_fresh(1)
    assert worker.counts(1)["staleness_generator_max"] == 1
    assert worker.counts(2)["fresh"] == 0
    assert worker.counts()["held"] == 4
    assert worker.counts(3)["held"] == 0


def test_every_count_is_newer_than_the_one_before(groups) -> None:
    worker = ReplayWorker(CONFIG)
    changes = [worker.add(groups[:1])["change"], worker.counts()["change"]]
    changes.append(worker.attach_rewards(records(groups[0]))["change"])
    assert changes == sorted(set(changes))


def test_a_worker_goes_on_from_the_state_of_another(groups) -> None:
    first, second = ReplayWorker(CONFIG), ReplayWorker(CONFIG)
    first.add(groups)
    first.attach_rewards([record for group in groups for record in records(group)])
    first.draw_rewarded(0)
    first.draw_fresh(1)
    second.load_state_dict(first.state_dict())
    assert second.counts()["fresh"] == first.counts()["fresh"] == 4
    ours, theirs = first.draw_rewarded(1), second.draw_rewarded(1)
    assert ours is not None
    assert theirs is not None
    assert asdict(ours)["statistics"] == asdict(theirs)["statistics"]
    assert torch.equal(ours.advantages_NK, theirs.advantages_NK)
    assert torch.equal(ours.fresh.boundaries_NKCHW, theirs.fresh.boundaries_NKCHW)
