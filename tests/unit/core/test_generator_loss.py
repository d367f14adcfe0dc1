"""The generator: its gradient, term by term, and what it must never touch (algorithm.md 4)."""

import pytest
import torch

from tdm_core.batches import fresh_batch
from tdm_core.config import without_reward
from tdm_core.denoiser import guided_velocity
from tdm_core.losses.generator import generator_loss, pull, reward_direction, row_normaliser
from tdm_core.noise_schedule import renoise, shift_sigma, tau_lower_bound
from tdm_core.sampler import sample
from tests.core_cases import (
    UNCONDITIONAL,
    AffineDenoiser,
    Recorder,
    RowDenoiser,
    algorithm,
    fake_score,
    fresh,
    generator,
    gradient,
    has_no_gradient,
    one_pass,
    rollout_group,
    surrogate,
    teacher,
)

pytestmark = pytest.mark.unit


def free_generator(p):
    """One free velocity a row: dL/dv = -s dL/dx0hat."""
    rng = torch.Generator().manual_seed(5)
    shape = p.boundaries_NKCHW[:, 0].shape
    return RowDenoiser(torch.randn(shape, generator=rng, dtype=torch.float64))


def evaluate(p, theta=None, f=None, phi=None, psi=None):
    return generator_loss(
        p,
        theta or generator(),
        f or fake_score(),
        phi or surrogate(),
        psi or teacher(),
        UNCONDITIONAL,
    )


def clean_gradient(p, theta, **nets):
    """dL/dx0hat (N, C, H, W)."""
    loss, _ = evaluate(p, theta, **nets)
    return gradient(loss, theta).reshape(theta.velocity.shape) / -p.sigmas[p.slot]


def x0(net, x, tau, p, scale=1.0):
    velocity = guided_velocity(net, x, tau, p.conditioning, UNCONDITIONAL, scale)
    return (x - tau.reshape(-1, 1, 1, 1) * velocity).detach()


def replayed(p, theta):
    s, n = p.sigmas[p.slot], p.sigmas[p.slot + 1]
    x = p.boundaries_NKCHW[:, p.slot]
    clean, x_n = (x - s * theta.velocity).detach(), (x - (s - n) * theta.velocity).detach()
    tau = p.draw_tau("kl_tau", p.slot, 0.0, shared=p.config.tau_sharing == "per_slot")
    tau_r = p.draw_tau("reward_tau", p.slot, p.config.generator.tau_min, shared=True)
    x_tau = renoise(x_n, p.draw_noise("kl_noise", shared=False), n, tau)
    x_tau_r = renoise(x_n, p.draw_noise("reward_noise", shared=True), n, tau_r)
    return clean, x_tau, tau, x_tau_r, tau_r


def row_mean(values):
    return values.flatten(1).mean(1).reshape(-1, 1, 1, 1)


def directions(p, theta):
    """(d_kl, d_cfg, d_rl, wf, wd) from the definitions."""
    clean, x_tau, tau, x_tau_r, tau_r = replayed(p, theta)
    cfg = p.config.generator.reward_guidance
    psi, f, phi = teacher(), fake_score(), surrogate()
    empty = {"label": torch.zeros_like(p.conditioning["label"])}
    without = (x_tau - tau.reshape(-1, 1, 1, 1) * psi(x_tau, tau, empty)).detach()
    d_kl = x0(psi, x_tau, tau, p) - x0(f, x_tau, tau, p)
    d_cfg = 3.5 * (x0(psi, x_tau, tau, p) - without)
    d_rl = x0(phi, x_tau_r, tau_r, p, cfg) - x0(psi, x_tau_r, tau_r, p)
    wf = row_mean((clean - x0(psi, x_tau, tau, p, 4.5)).abs())
    wd = row_mean((clean - x0(phi, x_tau_r, tau_r, p, cfg)).abs())
    return d_kl, d_cfg, d_rl, wf, wd


@pytest.mark.parametrize("sharing", ["per_sample", "per_slot"])
@pytest.mark.parametrize("slot", range(4))
def test_the_gradient_is_minus_the_weighted_directions(slot, sharing):
    p = one_pass(fresh((4, 3)), algorithm(tau_sharing=sharing), slot)
    theta = free_generator(p)
    d_kl, d_cfg, d_rl, wf, wd = directions(p, theta)
    total = 0.3 * d_cfg / wf + 0.7 * d_rl / wd + d_kl / wf
    expected = -2 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * total
    assert torch.allclose(clean_gradient(p, theta), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("slot", [2, 3])
def test_past_the_truncation_only_the_scaled_distillation_is_left(slot):
    p = one_pass(fresh(), algorithm(generator={"truncation": 2}), slot)
    theta, phi = free_generator(p), Recorder(surrogate())
    d_kl, d_cfg, _, wf, _ = directions(p, theta)
    expected = -2 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * 0.3 * (d_cfg + d_kl) / wf
    assert torch.allclose(clean_gradient(p, theta, phi=phi), expected, rtol=1e-11, atol=1e-15)
    assert not phi.calls


def test_the_loss_is_the_sum_of_its_weighted_terms():
    p = one_pass(fresh(), algorithm(), 1)
    theta = free_generator(p)
    d_kl, d_cfg, d_rl, wf, wd = directions(p, theta)
    loss, metrics = evaluate(p, theta)
    weight = p.weight_N.reshape(-1, 1, 1, 1)
    for name, d, w in (("kl", d_kl, wf), ("guidance", d_cfg, wf), ("reward", d_rl, wd)):
        term = (weight * row_mean(d.square() / w)).sum()
        assert float(metrics[f"generator/{name}"]) == pytest.approx(float(term), rel=1e-12)
    kl, guidance, reward = (metrics[f"generator/{name}"] for name in ("kl", "guidance", "reward"))
    assert loss.item() == pytest.approx(float(0.3 * guidance + 0.7 * reward + kl), rel=1e-12)


def test_a_pull_by_hand():
    """d = (3, -1), w = 2: mean(9, 1)/2 = 2.5, and the slope is -2 d / (n w) = (-1.5, .5)."""
    clean = torch.zeros((1, 2), dtype=torch.float64, requires_grad=True)
    direction = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    value = pull(clean, direction, torch.tensor([2.0]), 0.0)
    value.sum().backward()
    assert value.item() == pytest.approx(2.5)
    assert clean.grad is not None
    assert clean.grad.tolist() == [[pytest.approx(-1.5), pytest.approx(0.5)]]


def test_a_pseudo_huber_pull_by_hand():
    """d = (3, -4), c = 4, w = 2: (5 - 4 + sqrt(32) - 4)/4, slope -d/sqrt(d^2 + c^2)/(n w)."""
    clean = torch.zeros((1, 2), dtype=torch.float64, requires_grad=True)
    direction = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    value = pull(clean, direction, torch.tensor([2.0]), 4.0)
    value.sum().backward()
    assert value.item() == pytest.approx((1 + 32**0.5 - 4) / 4)
    assert clean.grad is not None
    assert clean.grad.tolist() == [[pytest.approx(-0.6 / 4), pytest.approx(4 / 32**0.5 / 4)]]


@pytest.mark.parametrize(("huber", "equal"), [(0.0, True), (1e-3, False)], ids=["mse", "huber"])
def test_separate_squares_are_one_combined_square_but_hubers_are_not(huber, equal):
    rng = torch.Generator().manual_seed(0)
    first, second, start = torch.randn((3, 5, 4), generator=rng, dtype=torch.float64)
    ones = torch.ones(5, dtype=torch.float64)
    clean = start.requires_grad_()
    separate = 0.3 * pull(clean, first, ones, huber) + pull(clean, second, ones, huber)
    combined = pull(clean, 0.3 * first + second, ones, huber)
    slopes = [torch.autograd.grad(v.sum(), clean)[0] for v in (separate, combined)]
    relative = float((slopes[0] - slopes[1]).norm() / slopes[1].norm())
    assert (relative < 1e-12) is equal
    assert equal or relative > 0.3


def test_the_huber_guidance_term_has_its_extra_factor():
    p = one_pass(fresh(), algorithm(generator={"pseudo_huber": 1e-3}), 1)
    theta = free_generator(p)
    d_kl, d_cfg, d_rl, wf, wd = directions(p, theta)

    def slope(d, w):
        return d / (d.square() + 1e-6).sqrt() / w

    total = 0.3 * 3.5 * slope(d_cfg, wf) + 0.7 * slope(d_rl, wd) + slope(d_kl, wf)
    expected = -1 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * total
    assert torch.allclose(clean_gradient(p, theta), expected, rtol=1e-10, atol=1e-15)


def test_descent_moves_the_prediction_along_each_direction():
    p = one_pass(fresh(), algorithm(), 1)
    theta = free_generator(p)
    d_kl, d_cfg, d_rl, wf, wd = directions(p, theta)
    step = -clean_gradient(p, theta)
    total = 0.3 * d_cfg / wf + 0.7 * d_rl / wd + d_kl / wf
    cosine = torch.nn.functional.cosine_similarity(step.flatten(1), total.flatten(1))
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-12)


@pytest.mark.parametrize("slot", range(4))
def test_the_gradient_is_zero_where_no_direction_is_left(slot):
    """f = psi, om = 0, phi = psi queried without guidance: exactly nothing to do."""
    config = algorithm(generator={"distillation_weight": 0.0, "reward_guidance": 1.0})
    p = one_pass(fresh(), config, slot)
    loss, _ = evaluate(p, theta := generator(), f=teacher(), phi=teacher())
    assert not gradient(loss, theta).any()


def test_at_the_start_the_reward_direction_is_a_guidance_push():
    p = one_pass(fresh(), algorithm(), 1)
    clean, _, _, x, tau = replayed(p, free_generator(p))
    psi = teacher()
    found, _ = reward_direction(
        x, tau, clean, p.conditioning, UNCONDITIONAL, psi, psi, p.config.generator
    )
    empty = x - tau.reshape(-1, 1, 1, 1) * psi(
        x, tau, {"label": torch.zeros_like(p.conditioning["label"])}
    )
    assert torch.allclose(found, (2.5 - 1) * (x0(psi, x, tau, p) - empty), atol=1e-13)


def test_the_pure_direction_guides_both_sides_alike():
    config = algorithm(generator={"pure_reward_direction": True})
    p = one_pass(fresh(), config, 1)
    clean, _, _, x, tau = replayed(p, free_generator(p))
    rows = (x, tau, clean, p.conditioning, UNCONDITIONAL)
    none, _ = reward_direction(*rows, teacher(), teacher(), config.generator)
    found, _ = reward_direction(*rows, teacher(), surrogate(), config.generator)
    assert not none.any()
    expected = x0(surrogate(), x, tau, p, 2.5) - x0(teacher(), x, tau, p, 2.5)
    assert torch.allclose(found, expected, atol=1e-14)


def test_the_reward_scale_multiplies_the_reward_term_alone():
    p = one_pass(fresh(), algorithm(generator={"reward_scale": 2.5}), 1)
    theta = free_generator(p)
    d_kl, d_cfg, d_rl, wf, wd = directions(p, theta)
    total = 0.3 * d_cfg / wf + 2.5 * 0.7 * d_rl / wd + d_kl / wf
    expected = -2 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * total
    assert torch.allclose(clean_gradient(p, theta), expected, rtol=1e-11, atol=1e-15)


def test_the_control_run_never_asks_the_surrogate():
    p = one_pass(fresh(), without_reward(algorithm()), 1)
    theta, phi = free_generator(p), Recorder(surrogate())
    d_kl, d_cfg, _, wf, _ = directions(p, theta)
    expected = -2 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * (0.3 * d_cfg + d_kl) / wf
    assert torch.allclose(clean_gradient(p, theta, phi=phi), expected, rtol=1e-11, atol=1e-15)
    assert not phi.calls


def test_normalisers_are_row_means_with_a_floor():
    clean = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    target = torch.tensor([[3.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    config = algorithm(generator={"min_normaliser": 0.5}).generator
    assert row_normaliser(clean, target, config).tolist() == [2.0, 0.5]


def test_only_the_generator_receives_a_gradient():
    p, theta = one_pass(fresh(), algorithm(), 1), generator()
    others = [AffineDenoiser(0.1 * i, 0.2, 0.3, 0.4) for i in range(3)]
    loss, metrics = evaluate(p, theta, *others)
    loss.backward()
    assert theta.coefficients.grad is not None
    assert has_no_gradient(*others)
    assert all(net.coefficients.requires_grad for net in others)
    assert not any(value.requires_grad for value in metrics.values())


def test_stored_boundaries_carry_no_gradient():
    rows = {"label": torch.ones(3, 1)}
    noise = torch.randn((3, 2, 1, 2), dtype=torch.float64)
    trajectory = sample(generator(), noise, rows, algorithm().sampler)
    assert not trajectory.boundaries_GKCHW.requires_grad


def test_the_networks_are_asked_as_often_as_the_table_says():
    """Rows a sample: theta 1, f 1, phi 2, psi 3; past the truncation phi 0 and psi 2."""

    def rows(slot):
        nets = [Recorder(net) for net in (generator(), fake_score(), surrogate(), teacher())]
        evaluate(one_pass(fresh(), algorithm(generator={"truncation": 2}), slot), *nets)
        return [sum(len(x) for x, _ in net.calls) // 8 for net in nets]

    assert rows(1) == [1, 1, 2, 3]
    assert rows(2) == [1, 1, 0, 2]


def test_the_kl_shares_the_fake_scores_tau_and_not_its_noise():
    p = one_pass(fresh(), algorithm(), 1)
    recorder = Recorder(fake_score())
    evaluate(p, f=recorder)
    ((_, tau),) = recorder.calls
    assert torch.equal(tau, p.draw_tau("kl_tau", 1, 0.0, shared=False))
    assert not torch.equal(
        p.draw_noise("fake_noise", shared=False), p.draw_noise("kl_noise", shared=False)
    )


def test_the_surrogate_is_queried_at_one_tau_above_its_minimum_with_group_noise():
    p = one_pass(fresh(), algorithm(generator={"tau_min": 0.4}), 3)
    recorder, theta = Recorder(surrogate()), free_generator(p)
    evaluate(p, theta, phi=recorder)
    ((x, tau),) = recorder.calls
    assert len(tau.unique()) == 1
    assert float(tau[0]) >= shift_sigma(tau_lower_bound(0.0, 0.4, 3.0, 0.02), 3.0) > 0.43
    a = (1 - tau[:8]).reshape(-1, 1, 1, 1)
    clean = replayed(p, theta)[0]
    noise = (x[:8] - a * clean) / tau[:8].reshape(-1, 1, 1, 1)
    assert torch.allclose(noise[:4], noise[:1].expand(4, -1, -1, -1), atol=1e-12)
    assert not torch.allclose(noise[0], noise[4], atol=1e-3)


@pytest.mark.parametrize("world_size", [2, 4, 8, 10])
def test_any_sharding_sums_to_the_same_loss_and_gradient(world_size):
    theta = generator()

    def summed(size):
        return sum(
            evaluate(one_pass(fresh((5, 4)), algorithm(), 1, rank=r, world_size=size), theta)[0]
            for r in range(size)
        )

    alone, split = summed(1), summed(world_size)
    assert torch.allclose(split, alone, rtol=1e-14)
    assert torch.allclose(gradient(split, theta), gradient(alone, theta), rtol=1e-12, atol=1e-15)


def test_the_order_of_groups_changes_nothing():
    groups, config = [rollout_group(i) for i in range(3)], algorithm(num_groups=3)
    first, second = (evaluate(one_pass(fresh_batch(g), config))[0] for g in (groups, groups[::-1]))
    assert torch.allclose(first, second, rtol=1e-14)


def test_the_second_order_replay_keeps_the_same_prediction():
    """dpmpp_2m changes x_n by a detached term; x0hat, which has the gradient, stays."""
    euler = algorithm(sampler={"grid": "discrete"})
    second = algorithm(sampler={"grid": "discrete", "solver": "dpmpp_2m"})
    batch = fresh(sampler=euler.sampler)
    losses = [evaluate(one_pass(batch, config, 2))[0] for config in (euler, second)]
    assert losses[0].item() != losses[1].item()
    assert all(torch.isfinite(loss) for loss in losses)
