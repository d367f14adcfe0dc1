"""The fake score: value, gradient, invariances and both targets (docs/algorithm.md 2.3)."""

from dataclasses import replace

import pytest
import torch

from tdm_core.batches import fresh_batch
from tdm_core.losses.fake_score import fake_score_loss, fake_score_target
from tdm_core.losses.replay import replay_step
from tdm_core.noise_schedule import conditional_velocity, renoise, transport
from tests.core_cases import (
    AffineDenoiser,
    Recorder,
    RowDenoiser,
    algorithm,
    fake_score,
    finite_difference,
    fresh,
    generator,
    gradient,
    has_no_gradient,
    one_pass,
    rollout_group,
    teacher,
)

pytestmark = pytest.mark.unit

TARGETS = ["clean_pred", "conditional_velocity"]
targets = pytest.mark.parametrize("target", TARGETS)


def drawn(p):
    n = p.sigmas[p.slot + 1]
    tau = p.draw_tau("kl_tau", p.slot, 0.0, shared=p.config.tau_sharing == "per_slot")
    noise = p.draw_noise("fake_noise", shared=False)
    replayed = replay_step(p, generator())
    return n, tau, noise, replayed


def by_hand(p, f):
    """A row at a time, from the definitions."""
    n, tau, noise, replayed = drawn(p)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(p.rows_N)):
        t, x_n, e = tau[i], replayed.x_n[i].detach(), noise[i]
        a, b2 = (1 - t) / (1 - n), (t - n) * (t + n - 2 * n * t) / (1 - n) ** 2
        x_tau = a * x_n + b2.sqrt() * e
        if p.config.fake_score.target == "clean_pred":
            target, weight = (x_tau - replayed.clean[i].detach()) / t, 1.0
        else:
            target = -x_n / (1 - n) + (t + a * n**2 / (1 - n)) / b2.sqrt() * e
            weight = min(1 / float(b2), 10.0) * b2
        row = {"label": p.conditioning["label"][i : i + 1]}
        v_f = f(x_tau[None], t[None], row)[0]
        v_psi = teacher()(x_tau[None], t[None], row)[0]
        miss = weight * (target - v_f).square().mean() + 0.02 * (v_psi - v_f).square().mean()
        total = total + p.weight_N[i] * miss
    return total


@targets
@pytest.mark.parametrize("slot", range(4))
def test_the_loss_is_its_definition_row_by_row(target, slot):
    p = one_pass(fresh((4, 3)), algorithm(fake_score={"target": target}), slot)
    f = fake_score()
    loss, _ = fake_score_loss(p, generator(), f, teacher())
    assert loss.item() == pytest.approx(by_hand(p, f).item(), rel=1e-12)


@targets
def test_the_gradient_agrees_with_finite_differences(target):
    p = one_pass(fresh(), algorithm(fake_score={"target": target}), slot=2)
    f = fake_score()

    def objective():
        return fake_score_loss(p, generator(), f, teacher())[0]

    assert torch.allclose(
        gradient(objective(), f), finite_difference(objective, f), rtol=1e-7, atol=1e-8
    )


@targets
def test_autograds_own_check_passes(target):
    p = one_pass(fresh((2,)), algorithm(num_groups=1, fake_score={"target": target}), slot=1)

    def objective(velocity):
        return fake_score_loss(p, generator(), lambda x, s, c: velocity, teacher())[0]

    velocity = torch.randn((2, 2, 1, 2), generator=torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(objective, (velocity.requires_grad_(),))


def test_a_hand_computed_value():
    """v_f meets the target less 2, and the teacher less 1: 4 + .02 x 1."""
    p = one_pass(fresh((2,)), algorithm(num_groups=1), slot=2)
    n, tau, noise, replayed = drawn(p)
    config = p.config.fake_score
    _, target, _ = fake_score_target(
        replayed.x_n.detach(), replayed.clean.detach(), noise, n, tau, config
    )
    loss, metrics = fake_score_loss(
        p, generator(), RowDenoiser(target - 2), RowDenoiser(target - 1)
    )
    assert loss.item() == pytest.approx(4.02)
    assert float(metrics["fake_score/matching"]) == pytest.approx(4.0)
    assert float(metrics["fake_score/teacher_distance"]) == pytest.approx(1.0)


@pytest.mark.parametrize("tau", [0.52, 0.6, 0.8, 1.0])
def test_the_exact_targets_weight_is_one_until_the_variance_is_small(tau):
    config = algorithm(fake_score={"target": "conditional_velocity"}).fake_score
    level = torch.tensor([tau], dtype=torch.float64)
    x_n, noise = torch.randn((2, 1, 2, 1, 1), dtype=torch.float64)
    x_tau, target, weight = fake_score_target(x_n, x_n, noise, 0.5, level, config)
    _, b = transport(0.5, level)
    expected = 1.0 if float(b**2) > 0.1 else 10 * float(b**2)
    assert float(weight) == pytest.approx(expected)
    assert torch.equal(target, conditional_velocity(x_n, noise, 0.5, level))
    assert torch.equal(x_tau, renoise(x_n, noise, 0.5, level))


def test_both_targets_agree_at_the_last_slot_alone():
    def targets_of(slot):
        p = one_pass(fresh(), algorithm(), slot)
        n, tau, noise, replayed = drawn(p)
        rows = (replayed.x_n.detach(), replayed.clean.detach(), noise, n, tau)
        return [
            fake_score_target(*rows, replace(p.config.fake_score, target=name))[1]
            for name in TARGETS
        ]

    assert torch.allclose(*targets_of(3), atol=1e-12)
    assert not any(torch.allclose(*targets_of(slot), atol=1e-3) for slot in range(3))


@targets
@pytest.mark.parametrize("world_size", [2, 4, 8, 10])
def test_any_sharding_sums_to_the_same_loss_and_gradient(target, world_size):
    config = algorithm(fake_score={"target": target})
    f = fake_score()

    def summed(size):
        return sum(
            fake_score_loss(
                one_pass(fresh((5, 4)), config, 1, rank=rank, world_size=size),
                generator(),
                f,
                teacher(),
            )[0]
            for rank in range(size)
        )

    alone, split = summed(1), summed(world_size)
    assert torch.allclose(split, alone, rtol=1e-14)
    assert torch.allclose(gradient(split, f), gradient(alone, f), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("sharing", ["per_sample", "per_slot"])
def test_the_order_of_groups_changes_nothing(sharing):
    groups, config = [rollout_group(i) for i in range(3)], algorithm(num_groups=3)
    config = replace(config, tau_sharing=sharing)
    first, second = (
        fake_score_loss(one_pass(fresh_batch(g), config), generator(), fake_score(), teacher())[0]
        for g in (groups, groups[::-1])
    )
    assert torch.allclose(first, second, rtol=1e-14)


@pytest.mark.parametrize(("sharing", "distinct"), [("per_sample", 8), ("per_slot", 1)])
def test_tau_is_drawn_per_sample_or_once_a_slot(sharing, distinct):
    recorder = Recorder(fake_score())
    p = one_pass(fresh(), algorithm(tau_sharing=sharing))
    fake_score_loss(p, generator(), recorder, teacher())
    assert len(recorder.calls[0][1].unique()) == distinct


def test_only_the_fake_score_receives_a_gradient():
    f, theta, psi = fake_score(), generator(), AffineDenoiser(0.1, 0.2, 0.3, 0.4)
    loss, metrics = fake_score_loss(one_pass(fresh(), algorithm()), theta, f, psi)
    loss.backward()
    assert f.coefficients.grad is not None
    assert has_no_gradient(theta, psi)
    assert not any(value.requires_grad for value in metrics.values())


def test_each_network_is_asked_once():
    nets = [Recorder(net) for net in (generator(), fake_score(), teacher())]
    fake_score_loss(one_pass(fresh(), algorithm()), *nets)
    assert [[len(x) for x, _ in net.calls] for net in nets] == [[8], [8], [8]]


def test_a_rank_without_rows_adds_nothing():
    p = one_pass(fresh((2,)), algorithm(num_groups=1), rank=3, world_size=4)
    f = fake_score()
    loss, _ = fake_score_loss(p, generator(), f, teacher())
    assert not gradient(loss, f).any()
