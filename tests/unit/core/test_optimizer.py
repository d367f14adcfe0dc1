"""Each role's own optimizer: clip, reduction over ranks, skipped steps, state."""

import pytest
import torch
from torch import nn

from tdm_core.optimizer import RoleOptimizer
from tests.core_cases import run_ranks

pytestmark = pytest.mark.unit


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([v], dtype=torch.float64)) for v in values]


def optimizer(params, **keywords) -> RoleOptimizer:
    settings = {"lr": 0.1, "betas": (0.0, 0.999), "weight_decay": 0.0} | keywords
    return RoleOptimizer(params, **settings)


def test_the_norm_before_the_clip_is_returned_and_the_clipped_gradient_used():
    params = parameters(0.0, 0.0)
    role = optimizer(params, betas=(0.0, 0.0), eps=1.0)
    role.backward(3 * params[0].sum() + 4 * params[1].sum())
    assert role.step() == pytest.approx(5.0)
    # Clipped to (.6, .8); with betas 0 and eps 1, AdamW steps by lr g / (|g| + 1).
    assert params[0].item() == pytest.approx(-0.1 * 0.6 / 1.6, rel=1e-5)
    assert params[1].item() == pytest.approx(-0.1 * 0.8 / 1.8, rel=1e-5)


def test_a_small_gradient_is_not_scaled_up():
    params = parameters(0.0)
    role = optimizer(params, betas=(0.0, 0.0), eps=1.0)
    role.backward(0.5 * params[0].sum())
    role.step()
    assert params[0].item() == pytest.approx(-0.1 * 0.5 / 1.5, rel=1e-12)


def test_one_roles_clip_does_not_see_anothers_gradient():
    def run(other_scale):
        mine, theirs = parameters(0.0), parameters(0.0)
        first, second = optimizer(mine, eps=1.0), optimizer(theirs, eps=1.0)
        second.backward(other_scale * theirs[0].sum())
        first.backward(0.5 * mine[0].sum())
        second.step()
        first.step()
        return mine[0].item()

    assert run(1.0) == run(1e9)


def test_gradients_accumulate_over_passes_and_clear_after_the_step():
    whole, split = parameters(1.0), parameters(1.0)
    one, two = optimizer(whole), optimizer(split)
    one.backward(3 * whole[0].square().sum())
    for factor in (1.0, 2.0):
        two.backward(factor * split[0].square().sum())
    assert one.step() == two.step()
    assert whole[0].item() == split[0].item()
    assert split[0].grad is None


def test_weight_decay_is_decoupled_from_the_gradient():
    params = parameters(2.0)
    role = optimizer(params, weight_decay=0.01)
    role.backward(0 * params[0].sum())
    role.step()
    assert params[0].item() == pytest.approx(2.0 * (1 - 0.1 * 0.01))


def test_a_parameter_without_gradient_counts_as_zero():
    params = parameters(1.0, 1.0)
    role = optimizer(params)
    role.backward(2 * params[0].sum())
    assert role.step() == pytest.approx(2.0)
    assert params[1].item() == 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_skips_the_step(bad):
    params = parameters(1.0)
    role = optimizer(params)
    role.backward(bad * params[0].sum())
    assert not torch.isfinite(torch.tensor(role.step()))
    assert params[0].item() == 1.0
    role.backward(params[0].sum())
    role.step()
    assert params[0].item() < 1.0


def test_a_fault_on_one_rank_skips_the_step_on_all():
    def body(rank, all_reduce):
        params = parameters(1.0)
        role = optimizer(params, all_reduce=all_reduce)
        role.backward((float("nan") if rank == 1 else 1.0) * params[0].sum())
        role.step()
        return params[0].item()

    assert run_ranks(3, body) == [1.0, 1.0, 1.0]


def test_gradients_are_summed_over_ranks():
    def body(rank, all_reduce):
        params = parameters(1.0, 2.0)
        role = optimizer(params, all_reduce=all_reduce)
        role.backward((rank + 1) * params[rank].square().sum())
        norm = role.step()
        return norm, [p.item() for p in params]

    alone = parameters(1.0, 2.0)
    role = optimizer(alone)
    role.backward(alone[0].square().sum() + 2 * alone[1].square().sum())
    assert run_ranks(2, body) == [(role.step(), [p.item() for p in alone])] * 2


def test_restored_state_continues_bit_for_bit():
    def advance(role, params, steps):
        for _ in range(steps):
            role.backward(sum((p**2 + p).sum() for p in params))
            role.step()

    params = parameters(1.0, -2.0)
    role = optimizer(params, betas=(0.9, 0.999))
    advance(role, params, 3)
    copied = parameters(*(p.item() for p in params))
    restored = optimizer(copied, betas=(0.9, 0.999))
    restored.load_state(role.state())
    advance(role, params, 3)
    advance(restored, copied, 3)
    assert [p.item() for p in params] == [p.item() for p in copied]


def test_state_is_a_copy():
    params = parameters(1.0)
    role = optimizer(params)
    role.backward(params[0].sum())
    role.step()
    state = role.state()
    kept = {name: value.clone() for name, value in state.items()}
    role.backward(params[0].sum())
    role.step()
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_the_state_of_a_fresh_optimizer_is_empty_and_loads():
    role = optimizer(parameters(1.0))
    assert role.state() == {}
    role.load_state({})
