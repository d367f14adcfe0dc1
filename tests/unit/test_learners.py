"""Both learners on the toy world: who moves when, what is published, what a state holds."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from services.config import RunConfig
from services.generator.learner import GeneratorLearner
from services.models.load import load_backbone
from services.models.roles import ROLES
from services.passes import PassTotals, RowMeans, passes_on
from services.ranks import Ranks, join
from services.surrogate.learner import SurrogateLearner
from tdm_core.types import RewardedBatch
from tests.learner_cases import GROUP_SIZES, Learners, toy_batch, toy_config

pytestmark = pytest.mark.unit

AGREEMENT = "surrogate/agreement/step_"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return toy_config(engine="torch", runtime="local")


@pytest.fixture(scope="module")
def batch(config: RunConfig) -> RewardedBatch:
    return toy_batch(config, 0)


def colocated(config: RunConfig) -> Learners:
    """Both learners over one backbone that holds all five roles."""
    backbone = load_backbone(config.model, ROLES)
    return Learners(
        GeneratorLearner(config, backbone=backbone), SurrogateLearner(config, backbone=backbone)
    )


def weights(learners: Learners) -> dict[str, list[Tensor]]:
    backbone = learners.generator.backbone
    return {role: list(backbone.tensors(role).values()) for role in ROLES if role != "teacher"}


def moved(learners: Learners, act: Callable[[], object]) -> set[str]:
    """The roles whose parameters `act` changed."""
    before = weights(learners)
    act()
    after = weights(learners)
    return {role for role in before if not all(map(torch.equal, before[role], after[role]))}


def test_an_update_moves_its_own_role_and_leaves_no_gradient_elsewhere(
    config: RunConfig, batch: RewardedBatch
) -> None:
    learners = colocated(config)
    generator, surrogate = learners.generator, learners.surrogate
    assert moved(learners, lambda: surrogate.update(batch)) == {"surrogate", "surrogate_ema"}
    assert moved(learners, lambda: generator.update_fake_score(batch.fresh)) == {"fake_score"}
    assert moved(learners, lambda: generator.update_generator(batch.fresh)) == {"generator"}
    backbone = generator.backbone
    assert all(p.grad is None for role in ROLES for p in backbone.parameters(role))


def test_an_empty_batch_is_skipped(config: RunConfig) -> None:
    learners = colocated(config)
    assert learners.surrogate.update(None) == {"skipped": 1.0}
    assert learners.generator.update_fake_score(None) == {"skipped": 1.0}
    assert learners.generator.update_generator(None) == {"skipped": 1.0}
    assert learners.generator.publish_weights().version == 0


def test_the_fake_score_can_accumulate_first_and_step_later(
    config: RunConfig, batch: RewardedBatch
) -> None:
    at_once, later = colocated(config), colocated(config)
    whole = at_once.generator.update_fake_score(batch.fresh)
    assert moved(later, lambda: later.generator.update_fake_score(batch.fresh, step=False)) == set()
    assert (
        whole["fake_score/grad_norm"] == later.generator.step_fake_score()["fake_score/grad_norm"]
    )
    pairs = zip(weights(at_once)["fake_score"], weights(later)["fake_score"], strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_in_jacobi_order_the_generator_sees_the_fake_score_of_before(
    config: RunConfig, batch: RewardedBatch
) -> None:
    jacobi, alone = colocated(config), colocated(config)
    jacobi.generator.update_fake_score(batch.fresh, step=False)
    jacobi.generator.update_generator(batch.fresh)
    jacobi.generator.step_fake_score()
    alone.generator.update_generator(batch.fresh)
    pairs = zip(weights(jacobi)["generator"], weights(alone)["generator"], strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_published_weights_carry_the_number_of_updates(
    config: RunConfig, batch: RewardedBatch
) -> None:
    learners = Learners.make(config)
    metrics = learners.iterate(batch)
    generator = learners.generator
    assert generator.publish_weights().version == generator.publish_ema().version == 1
    assert generator.publish_weights().payload != generator.publish_ema().payload
    assert generator.surrogate_version == learners.surrogate.publish_weights().version == 1
    assert metrics["generator/surrogate_version"] == 1.0


def test_a_surrogate_from_another_run_is_refused(config: RunConfig) -> None:
    learners = Learners.make(config)
    foreign = dataclasses.replace(learners.surrogate.publish_weights(), config_hash="f00")
    with pytest.raises(ValueError, match="made under config"):
        learners.generator.load_surrogate(foreign)
    with pytest.raises(ValueError, match="expected weights of 'surrogate'"):
        learners.generator.load_surrogate(learners.generator.publish_weights())


def test_a_restored_pair_goes_on_bit_for_bit(config: RunConfig, batch: RewardedBatch) -> None:
    learners, fresh = Learners.make(config), Learners.make(config)
    for iteration in range(2):
        learners.iterate(toy_batch(config, iteration))
    for ours, theirs in (
        (fresh.generator, learners.generator),
        (fresh.surrogate, learners.surrogate),
    ):
        state = theirs.state_dict()
        facts = json.loads(json.dumps(state["facts"]))
        ours.load_state_dict({"tensors": state["tensors"], "facts": facts})
    assert learners.iterate(batch) == fresh.iterate(batch)
    first, second = learners.tensors(), fresh.tensors()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_row_that_is_not_finite_costs_the_step_and_nothing_else(config: RunConfig) -> None:
    learners = colocated(config)
    learners.iterate(toy_batch(config, 0))
    spoiled = toy_batch(config, 1)
    spoiled.fresh.boundaries_NKCHW[0] = torch.nan
    power = learners.surrogate.velocity_power
    assert moved(learners, lambda: learners.iterate(spoiled)) <= {"surrogate_ema"}
    assert learners.surrogate.velocity_power == power
    metrics = learners.iterate(toy_batch(config, 2))
    assert all(torch.isfinite(torch.tensor(list(metrics.values()))))


def test_ranks_share_out_every_row_once(config: RunConfig, batch: RewardedBatch) -> None:
    device = torch.device("cpu")
    seen = []
    for rank in range(3):
        ranks = Ranks(rank, 3)
        for p in passes_on(device, batch.fresh, config.algorithm, 0, 0, ranks):
            seen.extend(p.rows_N.tolist())
    assert sorted(seen) == sorted([*range(sum(GROUP_SIZES))] * config.algorithm.slots_per_update)


def test_what_the_surrogate_makes_of_a_batch_is_of_before_its_update(
    config: RunConfig, batch: RewardedBatch
) -> None:
    learner = SurrogateLearner(config)
    assert learner.implicit_rewards() == {}
    learner.update(batch)
    rewards = learner.implicit_rewards()
    assert [len(rewards[group_id]) for group_id in batch.fresh.group_ids] == list(GROUP_SIZES)
    # It starts as its own reference.
    assert all(reward == 0 for of_group in rewards.values() for reward in of_group)
    learner.update(batch)
    later = learner.implicit_rewards()
    assert any(reward != 0 for of_group in later.values() for reward in of_group)
    assert learner.implicit_rewards() == later


def test_the_surrogate_is_held_against_the_rewards_at_every_step_that_it_was_asked_at(
    config: RunConfig, batch: RewardedBatch
) -> None:
    learner = SurrogateLearner(config)
    slots = [
        {p.surrogate_slot for p in passes_on(torch.device("cpu"), *of_update)}
        for of_update in ((batch.fresh, config.algorithm, 0, step, Ranks()) for step in range(2))
    ]
    for update in range(2):
        metrics = learner.update(batch)
        told = {int(name[-1]): metrics[name] for name in metrics if name.startswith(AGREEMENT)}
        assert told  # of a step at which no group has contrast nothing is
        assert told.keys() <= slots[update]
        # At first it is its own reference, and every pair a tie.
        assert all((value == 0.5) == (update == 0) for value in told.values())


def test_row_means_are_of_each_step_and_of_its_passes(batch: RewardedBatch) -> None:
    means = RowMeans(batch.fresh, torch.device("cpu"))
    rows = torch.arange(sum(GROUP_SIZES))
    means.add(rows, 1, torch.ones(len(rows)))
    means.add(rows[:2], 1, torch.tensor([3.0, 5.0]))
    means.add(rows[2:], 3, torch.full((len(rows) - 2,), 7.0))
    found = means.over(Ranks())
    assert found[:, 1].tolist() == [2, 3] + [1] * (len(rows) - 2)
    assert found[:2, 3].isnan().all()
    assert (found[2:, 3] == 7).all()
    assert found[:, [0, 2]].isnan().all()


def test_totals_add_up_over_passes() -> None:
    totals = PassTotals()
    totals.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    totals.add({"a": torch.tensor(0.5)})
    assert totals.over(Ranks()) == {"a": 1.5, "b": 2.0}
    assert PassTotals().over(Ranks()) == {}


def test_joining_checks_rank_and_address() -> None:
    cpu = torch.device("cpu")
    assert join(0, 1, "", cpu) == Ranks()
    with pytest.raises(ValueError, match="rank=2: allowed 0 to 1"):
        join(2, 2, "127.0.0.1:1", cpu)
    with pytest.raises(ValueError, match="as host:port"):
        join(0, 2, "", cpu)
