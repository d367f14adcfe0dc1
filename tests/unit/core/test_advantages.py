"""From rewards to advantages: hand values, invariances, and everything that may be missing."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tdm_core.advantages import AdvantageNormaliser, GroupRewards, RollingSpread, per_step_rewards
from tdm_core.config import AdvantageConfig

pytestmark = pytest.mark.unit

NAN = float("nan")
AUTHORS = AdvantageConfig(normaliser="batch_std", recentre=False)
OURS = AdvantageConfig()
every_setting = pytest.mark.parametrize(
    "config",
    [
        AdvantageConfig(normaliser=normaliser, combination=combination, recentre=recentre)
        for normaliser in ("batch_std", "rolling_std")
        for combination in ("weighted_sum", "per_reward_advantage")
        for recentre in (True, False)
    ],
    ids=lambda c: f"{c.normaliser}-{c.combination}-{'recentred' if c.recentre else 'plain'}",
)


def group(*rewards, steps: int = 1) -> GroupRewards:
    """One row a reward, one number a sample; the same in every column."""
    values = torch.tensor(rewards, dtype=torch.float64)[..., None].expand(-1, -1, steps)
    return GroupRewards(values, ~values.isnan())


def advantages(config, *groups, weights=(1.0,)):
    found = AdvantageNormaliser(config, weights)(groups)
    return [g.advantages_GK[:, 0] for g in found]


def test_the_authors_advantages_by_hand():
    """Rewards (1, 3) and (5, 7): population std sqrt(5), plus the floor 1e-4."""
    first, second = advantages(AUTHORS, group([1.0, 3.0]), group([5.0, 7.0]))
    unit = 1 / (5**0.5 + 1e-4)
    assert first.tolist() == pytest.approx([-unit, unit], rel=1e-14)
    assert second.tolist() == pytest.approx([-unit, unit], rel=1e-14)


def test_the_rolling_advantages_by_hand():
    """Group-centred rewards (-1, 1) and (-3, 3): std sqrt(5) over both groups."""
    first, second = advantages(OURS, group([1.0, 3.0]), group([5.0, 11.0]))
    assert first.tolist() == pytest.approx([-(0.2**0.5), 0.2**0.5], rel=1e-14)
    assert second.tolist() == pytest.approx([-3 * 0.2**0.5, 3 * 0.2**0.5], rel=1e-14)


def test_the_rolling_spread_remembers_earlier_batches_and_forgets_the_oldest():
    normaliser = AdvantageNormaliser(replace(OURS, rolling_groups=2), [1.0])
    normaliser([group([0.0, 20.0])])
    (second,) = normaliser([group([0.0, 2.0])])
    assert second.advantages_GK[1].item() == pytest.approx(1 / (101 / 2) ** 0.5)
    (third,) = normaliser([group([0.0, 2.0])])
    assert third.advantages_GK[1].item() == pytest.approx(1.0)


def test_advantages_are_in_double_precision():
    assert advantages(OURS, group([1.0, 2.0]))[0].dtype == torch.float64


@every_setting
def test_the_mean_of_a_group_is_zero(config):
    rng = torch.Generator().manual_seed(0)
    groups = [
        group(torch.randn(size, generator=rng, dtype=torch.float64).tolist()) for size in (4, 7, 2)
    ]
    for found in advantages(config, *groups):
        assert found.mean().item() == pytest.approx(0, abs=1e-14)


@every_setting
def test_adding_a_constant_to_a_prompts_rewards_changes_nothing_within_the_batch_spread(config):
    rewards = [1.0, 2.0, 4.0, 4.5]
    plain = advantages(config, group(rewards))[0]
    shifted = advantages(config, group([r + 7 for r in rewards]))[0]
    assert torch.allclose(plain, shifted, atol=1e-12)


@every_setting
def test_scaling_the_rewards_changes_nothing_but_the_floor(config):
    rewards = [1.0, 2.0, 4.0, 4.5]
    plain = advantages(config, group(rewards))[0]
    scaled = advantages(config, group([9 * r for r in rewards]))[0]
    assert torch.allclose(plain, scaled, rtol=2e-4)


@every_setting
def test_the_clip_is_at_five(config):
    (found,) = advantages(config, group([0.0] * 63 + [1.0]))
    # One sample in 64 stands sqrt(63) = 7.94 standard deviations out.
    # Re-centring gives what the clip took back to the group's mean.
    top = 5 + (63**0.5 - 5) / 64 if config.recentre else 5.0
    assert found.max().item() == pytest.approx(top, abs=1e-3)
    if config.recentre:
        assert found.sum().item() == pytest.approx(0, abs=1e-12)


def test_the_clip_share_is_counted_before_re_centring():
    (found,) = AdvantageNormaliser(OURS, [1.0])([group([0.0] * 63 + [1.0])])
    assert found.clipped_GK.sum().item() == 1
    assert found.clipped_GK[63]


@every_setting
def test_equal_rewards_have_no_advantage(config):
    contrast, flat = advantages(config, group([0.0, 1.0]), group([3.0, 3.0]))
    assert not flat.any()
    assert contrast.any()


@every_setting
def test_a_batch_of_constant_groups_has_no_advantage_at_all(config):
    for found in advantages(config, group([2.0, 2.0]), group([2.0, 2.0, 2.0])):
        assert torch.equal(found, torch.zeros_like(found))


@every_setting
def test_a_missing_reward_is_a_mask_and_poisons_nothing(config):
    normaliser = AdvantageNormaliser(config, [1.0])
    found, other = normaliser([group([1.0, NAN, 3.0]), group([0.0, 4.0])])
    alone, same = AdvantageNormaliser(config, [1.0])([group([1.0, 3.0]), group([0.0, 4.0])])
    assert found.valid_GK[:, 0].tolist() == [True, False, True]
    assert found.advantages_GK[1].item() == 0
    assert torch.equal(found.advantages_GK[[0, 2]], alone.advantages_GK)
    assert torch.equal(other.advantages_GK, same.advantages_GK)


@every_setting
def test_one_valid_member_gives_no_preference(config):
    lonely, other = advantages(config, group([NAN, 5.0, NAN]), group([0.0, 1.0]))
    assert not lonely.any()
    assert torch.isfinite(other).all()


@every_setting
def test_a_group_that_failed_whole_is_all_masked(config):
    normaliser = AdvantageNormaliser(config, [1.0])
    gone, other = normaliser([group([NAN, NAN]), group([0.0, 1.0])])
    (alone,) = AdvantageNormaliser(config, [1.0])([group([0.0, 1.0])])
    assert not gone.valid_GK.any()
    assert not gone.advantages_GK.any()
    assert torch.equal(other.advantages_GK, alone.advantages_GK)


@every_setting
def test_a_batch_that_failed_whole_is_survived(config):
    for found in advantages(config, group([NAN, NAN]), group([NAN, NAN])):
        assert not found.any()


def test_a_weighted_sum_adds_raw_rewards():
    (found,) = advantages(OURS, group([0.0, 1.0], [4.0, 2.0]), weights=(1.0, 2.0))
    (single,) = advantages(OURS, group([8.0, 5.0]))
    assert torch.allclose(found, single, atol=1e-14)


def test_per_reward_advantages_do_not_let_one_scale_drown_the_other():
    config = replace(OURS, combination="per_reward_advantage", clip=50.0)
    (found,) = advantages(config, group([0.0, 1.0], [900.0, 0.0]), weights=(1.0, 3.0))
    assert found.tolist() == pytest.approx([-1 + 3, 1 - 3])


@pytest.mark.parametrize("normaliser", ["batch_std", "rolling_std"])
def test_a_weight_counts_once_and_may_be_negative(normaliser):
    config = AdvantageConfig(
        normaliser=normaliser, combination="per_reward_advantage", std_floor=1e-12, recentre=False
    )
    (found,) = advantages(config, group([0.0, 4.0]), weights=(-2.0,))
    assert found.tolist() == pytest.approx([2.0, -2.0], rel=1e-9)


def test_a_reward_of_weight_zero_is_ignored():
    for combination in ("weighted_sum", "per_reward_advantage"):
        config = replace(OURS, combination=combination)
        (found,) = advantages(config, group([0.0, 1.0], [5.0, -9.0]), weights=(1.0, 0.0))
        assert found.tolist() == pytest.approx([-1.0, 1.0])


def test_one_of_several_rewards_may_be_missing():
    """The sample keeps its other reward's term, its weight is not raised, and it stays valid."""
    normaliser = AdvantageNormaliser(replace(OURS, recentre=False, rolling_groups=1), [1.0, 1.0])
    (found,) = normaliser([group([0.0, 1.0, 2.0], [NAN, 3.0, 5.0])])
    terms = torch.tensor([-1.0, 0.0 - 1.0, 1.0 + 1.0], dtype=torch.float64)
    expected = terms / terms.square().mean().sqrt()
    assert found.valid_GK.all()
    assert torch.allclose(found.advantages_GK[:, 0], expected, atol=1e-14)


def written_out(combination: str, batch: list[list[list[float]]], weights) -> list[list[float]]:
    """docs/rewards.md in plain Python: spreads of this batch alone, clip, re-centre."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def about_mean(row: list[float]) -> list[float]:
        there = [value for value in row if not math.isnan(value)]
        if len(there) < 2:  # nobody to be compared with
            return [0.0] * len(row)
        return [0.0 if math.isnan(value) else value - mean(there) for value in row]

    def spread(rows: list[list[float]], present: list[list[bool]]) -> float:
        counted = [
            value**2
            for row, here in zip(rows, present, strict=True)
            if sum(here) >= 2
            for value, valid in zip(row, here, strict=True)
            if valid
        ]
        return max(mean(counted) ** 0.5 if counted else 0.0, OURS.std_floor)

    present = [[[not math.isnan(v) for v in row] for row in rewards] for rewards in batch]
    anywhere = [[any(column) for column in zip(*rewards, strict=True)] for rewards in present]
    centred = [[about_mean(row) for row in rewards] for rewards in batch]
    if combination == "per_reward_advantage":
        units = [
            spread([g[r] for g in centred], [g[r] for g in present]) for r in range(len(weights))
        ]
        units = [max(unit, OURS.std_floor / abs(w)) for unit, w in zip(units, weights, strict=True)]
    else:
        units = [1.0] * len(weights)
    sums = [
        [
            sum(w * c / u for w, c, u in zip(weights, column, units, strict=True))
            for column in columns
        ]
        for columns in (zip(*rewards, strict=True) for rewards in centred)
    ]
    if combination == "weighted_sum":
        whole = spread(sums, anywhere)
        sums = [[value / whole for value in row] for row in sums]
    results = []
    for row, here in zip(sums, anywhere, strict=True):
        clipped = [min(max(value, -OURS.clip), OURS.clip) for value in row]
        kept = [value for value, valid in zip(clipped, here, strict=True) if valid]
        shift = mean(kept) if len(kept) >= 2 else 0.0
        alone = len(kept) < 2
        results.append(
            [
                0.0 if alone or not valid else v - shift
                for v, valid in zip(clipped, here, strict=True)
            ]
        )
    return results


@pytest.mark.parametrize("combination", ["weighted_sum", "per_reward_advantage"])
@pytest.mark.parametrize("seed", range(25))
def test_two_rewards_with_holes_are_combined_as_the_document_says(combination, seed):
    rng = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn(4, 2, 5, generator=rng, dtype=torch.float64)
    values[:, 1] *= 100
    values[torch.rand(values.shape, generator=rng) < 0.35] = NAN
    batch, weights = values.tolist(), (1.0, -0.5)
    config = replace(OURS, combination=combination)
    found = advantages(config, *(group(*rewards) for rewards in batch), weights=weights)
    for row, wanted in zip(found, written_out(combination, batch, weights), strict=True):
        assert row.tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_a_reward_that_a_whole_group_lacks_does_not_enter_the_batch_spread_as_zero():
    normaliser = AdvantageNormaliser(AUTHORS, [1.0, 1.0])
    near, far = (
        normaliser([group([0.0, 1.0], [NAN, NAN]), group([0.0, 1.0], [level, level])])
        for level in (0.0, 1000.0)
    )
    assert torch.allclose(near[0].advantages_GK, far[0].advantages_GK)


def test_terminal_fills_every_column_with_the_final_reward():
    columns = per_step_rewards(torch.tensor([[1.0], [NAN]], dtype=torch.float64), 4)
    assert torch.equal(columns[0], torch.ones(4, dtype=torch.float64))
    assert columns[1].isnan().all()


def test_gain_is_what_each_step_adds_to_the_one_before():
    columns = per_step_rewards(torch.tensor([[0.1, 0.4, 0.3, 0.9]], dtype=torch.float64), 4)
    assert columns[0].tolist() == pytest.approx([0.1, 0.3, -0.1, 0.6])
    assert columns.sum().item() == pytest.approx(0.9)


def test_a_missing_step_takes_both_gains_it_touches_with_it():
    columns = per_step_rewards(torch.tensor([[0.1, NAN, 0.3, 0.9]], dtype=torch.float64), 4)
    assert columns[0].isnan().tolist() == [False, True, True, False]


def test_another_number_of_rewards_is_refused():
    with pytest.raises(ValueError, match=r"2 rewards a sample; allowed are 1 \(terminal\) or 4"):
        per_step_rewards(torch.zeros(3, 2), 4)


@every_setting
def test_columns_are_normalised_each_by_itself(config):
    both = torch.tensor([[[0.0, 5.0], [1.0, 1.0]]], dtype=torch.float64)
    (found,) = AdvantageNormaliser(config, [1.0])([GroupRewards(both, ~both.isnan())])
    for k in range(2):
        column = both[..., k : k + 1]
        (alone,) = AdvantageNormaliser(config, [1.0])([GroupRewards(column, ~column.isnan())])
        assert torch.equal(found.advantages_GK[:, k : k + 1], alone.advantages_GK)


@pytest.mark.parametrize("combination", ["weighted_sum", "per_reward_advantage"])
def test_a_restored_normaliser_goes_on_identically(combination):
    config = replace(OURS, combination=combination, rolling_groups=3)
    first = AdvantageNormaliser(config, [1.0, 0.5])
    first([group([0.0, 1.0], [3.0, 9.0]), group([0.0, NAN], [3.0, 8.0])])
    second = AdvantageNormaliser(config, [1.0, 0.5])
    second.load_state(first.state())
    batch = [group([0.0, 2.0], [1.0, 9.0])]
    assert torch.equal(first(batch)[0].advantages_GK, second(batch)[0].advantages_GK)
    assert first.state() == second.state()


def test_a_column_without_pairs_has_no_spread():
    spread = RollingSpread(4)
    spread.add(torch.zeros(3, 1, dtype=torch.float64), torch.tensor([[True], [False], [False]]))
    assert spread.std(1).tolist() == [0.0]


def test_a_reward_that_few_groups_have_is_remembered_over_as_many_of_them():
    """People label one group in three; their spread is of the last two labelled ones."""
    config = replace(OURS, combination="per_reward_advantage", rolling_groups=2)
    normaliser = AdvantageNormaliser(config, [1.0, 1.0])
    absent = [NAN, NAN]
    normaliser([group([0.0, 4.0], [0.0, 1.0]), group([0.0, 4.0], absent)])
    normaliser([group([0.0, 4.0], absent)])
    (found,) = normaliser([group([0.0, 4.0], [0.0, 3.0])])
    human = math.sqrt((2 * 0.5**2 + 2 * 1.5**2) / 4)
    assert found.advantages_GK[1, 0].item() == pytest.approx(2 / 2 + 1.5 / human)


@pytest.mark.parametrize("weight", [1.0, 1.5, -0.5])
def test_an_absent_reward_adds_nothing_and_the_weight_of_the_other_stays(weight):
    config = replace(OURS, combination="per_reward_advantage")
    normaliser = AdvantageNormaliser(config, [weight, 3.0])
    with_both, without = normaliser([group([0.0, 1.0], [0.0, 1.0]), group([0.0, 1.0], [NAN, NAN])])
    alone = AdvantageNormaliser(config, [weight])([group([0.0, 1.0])] * 2)[1]
    assert torch.allclose(without.advantages_GK, alone.advantages_GK)
    assert torch.allclose(with_both.advantages_GK, without.advantages_GK * (weight + 3) / weight)


@pytest.mark.parametrize("combination", ["weighted_sum", "per_reward_advantage"])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_rewards_own_floor_holds_where_its_spread_is_small(combination, weight):
    """Posterior means that differ by .02 say little: floored at .1, not blown up to 1."""
    config = replace(OURS, combination=combination)
    (found,) = AdvantageNormaliser(config, [weight], [0.1])([group([0.50, 0.52])])
    unit = 0.1 if combination == "weighted_sum" else 0.1 / weight
    assert found.advantages_GK[1, 0].item() == pytest.approx(0.01 / unit)


rewards_or_missing = st.one_of(
    st.just(NAN), st.floats(-1e6, 1e6, allow_nan=False).map(lambda r: round(r, 3))
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.lists(st.lists(rewards_or_missing, min_size=2, max_size=6), min_size=1, max_size=4),
    st.sampled_from(["batch_std", "rolling_std"]),
)
def test_whatever_arrives_advantages_are_finite_centred_and_masked(rows, normaliser):
    config = AdvantageConfig(normaliser=normaliser)
    for found, row in zip(
        AdvantageNormaliser(config, [1.0])([group(row) for row in rows]), rows, strict=True
    ):
        values = found.advantages_GK[:, 0]
        assert torch.isfinite(values).all()
        assert abs(values.sum().item()) < 1e-9
        assert values.abs().max().item() <= 2 * config.clip
        missing = torch.tensor(row).isnan()
        assert torch.equal(found.valid_GK[:, 0], ~missing)
        assert not values[missing].any()
