"""Groups as a batch, and the statistics that people watch."""

from dataclasses import replace

import pytest
import torch

from tdm_core.advantages import AdvantageNormaliser, per_step_rewards
from tdm_core.batches import fresh_batch, rewarded_batch
from tdm_core.config import AdvantageConfig
from tdm_core.types import RewardedGroup, rows_of
from tests.core_cases import rollout_group

pytestmark = pytest.mark.unit

NAN = float("nan")


def judged(group_id: int, rewards_GS, revision: int = 1) -> RewardedGroup:
    values = per_step_rewards(torch.tensor([rewards_GS], dtype=torch.float64), 4)
    group = rollout_group(group_id, len(rewards_GS))
    return RewardedGroup(group, values, ~values.isnan(), revision)


def tagged(rewarded: RewardedGroup, tag: str) -> RewardedGroup:
    prompt = replace(rewarded.group.prompt, metadata={"tag": tag})
    return replace(rewarded, group=replace(rewarded.group, prompt=prompt))


def batch_of(*groups, **config):
    return rewarded_batch(groups, AdvantageNormaliser(AdvantageConfig(**config), [1.0]), ["r"])


def test_groups_become_rows_in_order():
    batch = fresh_batch([rollout_group(5, 2, version=3), rollout_group(4, 3)])
    assert batch.group_ids == (5, 4)
    assert batch.group_sizes == (2, 3)
    assert batch.policy_versions == (3, 0)
    assert rows_of(batch).tolist() == [0, 0, 1, 1, 1]
    assert batch.boundaries_NKCHW.shape == (5, 5, 2, 1, 2)
    assert batch.conditioning["label"].flatten().tolist() == [1.5, 1.5, 1.0, 1.0, 1.0]


def test_advantages_stand_beside_their_rows():
    batch = batch_of(judged(0, [[0.0], [1.0]]), judged(1, [[3.0], [NAN], [1.0]]))
    assert batch.advantages_NK.shape == (5, 4)
    assert batch.advantages_NK[:, 0].sign().tolist() == [-1, 1, 1, 0, -1]
    assert batch.valid_NK[:, 3].tolist() == [True, True, True, False, True]


def test_statistics_count_valid_rewards_only():
    batch = batch_of(judged(0, [[0.0], [1.0]]), judged(1, [[2.0], [NAN]]))
    facts = batch.statistics
    assert facts["reward/r/mean"] == pytest.approx(1.0)
    assert facts["reward/r/std"] == pytest.approx((2 / 3) ** 0.5)
    assert facts["reward/r/p10"] == pytest.approx(0.2)  # of 0, 1, 2: between them, linearly
    assert facts["reward/r/p90"] == pytest.approx(1.8)
    assert facts["reward/r/step_0"] == pytest.approx(1.0)
    assert facts["advantage/valid"] == pytest.approx(0.75)
    a = 1.5 * facts["advantage/abs_mean"]  # the valid advantages are a, -a and 0
    assert facts["advantage/std"] == pytest.approx((2 / 3) ** 0.5 * a)
    assert facts["advantage/zero_signal"] == pytest.approx(0.5)
    assert facts["advantage/clipped"] == 0.0


def test_in_gain_form_the_reported_reward_is_the_final_images():
    rows = [[0.1, 0.4, 0.3, 0.9], [0.2, 0.2, 0.2, 0.5]]
    facts = batch_of(judged(0, rows), per_step="gain").statistics
    assert facts["reward/r/mean"] == pytest.approx(0.7)
    assert facts["reward/r/step_0"] == pytest.approx(0.15)
    assert facts["reward/r/step_3"] == pytest.approx(0.45)


def test_rewards_are_told_by_the_prompts_tags():
    groups = [
        tagged(judged(0, [[0.0], [1.0]]), "counting"),
        tagged(judged(1, [[4.0], [NAN]]), "counting"),
        tagged(judged(2, [[NAN], [NAN]]), "colors"),  # missing, not zero
        judged(3, [[9.0], [9.0]]),
    ]
    facts = batch_of(*groups).statistics
    told = {name: value for name, value in facts.items() if name.startswith("reward_by_tag/")}
    assert told == {"reward_by_tag/r/counting": pytest.approx(5 / 3)}
    path = tagged(judged(0, [[0.1, 0.4, 0.3, 0.9], [0.2, 0.2, 0.2, 0.5]]), "counting")
    facts = batch_of(path, per_step="gain").statistics
    assert facts["reward_by_tag/r/counting"] == pytest.approx(0.7)


def test_a_batch_without_any_valid_reward_reports_no_reward():
    facts = batch_of(judged(0, [[NAN], [NAN]])).statistics
    assert facts.keys().isdisjoint({"reward/r/mean", "advantage/std"})
    assert facts["advantage/zero_signal"] == 1.0
    assert facts["advantage/valid"] == 0.0
