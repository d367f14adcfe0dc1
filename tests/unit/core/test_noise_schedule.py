"""The path, the transport and the laws of tau (docs/algorithm.md 1 and 2)."""

from itertools import pairwise

import pytest
import torch

from tdm_core.config import AlgorithmConfig, SamplerConfig, SurrogateConfig
from tdm_core.losses.fake_score import fake_score_target
from tdm_core.noise_schedule import (
    boundaries,
    conditional_velocity,
    kappa,
    renoise,
    shift_sigma,
    surrogate_slot_weights,
    tau_from_uniform,
    tau_lower_bound,
    transport,
    unshift_sigma,
)
from tdm_core.toy import ToyWorld
from tests.core_cases import ks_distance

pytestmark = pytest.mark.unit

INTEGER_GRID = (0.999, 0.899, 0.749, 0.499, 0.0)
"""The timesteps that the authors' scheduler truncates to."""
LEVELS = (0.0, 0.3, 0.5, 0.75, 0.9)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def taus_above(n: float, count: int = 50) -> torch.Tensor:
    return n + (1 - n) * torch.linspace(0.01, 1.0, count, dtype=torch.float64)


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.5])
def test_unshift_undoes_shift(shift):
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert torch.allclose(unshift_sigma(shift_sigma(u, shift), shift), u, atol=1e-15)


def test_the_nominal_grid_of_four_steps_is_the_papers():
    assert boundaries(SamplerConfig()) == pytest.approx((1, 0.9, 0.75, 0.5, 0), abs=1e-15)


def test_the_discrete_grid_has_the_schedulers_true_sigmas():
    grid = boundaries(SamplerConfig(grid="discrete"))
    assert grid == pytest.approx((0.99967, 0.89964, 0.74962, 0.49967, 0), abs=5e-6)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 49])
@pytest.mark.parametrize("grid", ["nominal", "discrete"])
def test_every_grid_falls_strictly_to_exactly_zero(steps, grid):
    levels = boundaries(SamplerConfig(num_steps=steps, grid=grid))
    assert len(levels) == steps + 1
    assert levels[-1] == 0.0
    assert all(high > low for high, low in pairwise(levels))


@pytest.mark.parametrize("n", LEVELS)
def test_transport_keeps_the_noise_level(n):
    tau = taus_above(n)
    a, b = transport(n, tau)
    assert torch.allclose((a * n) ** 2 + b**2, tau**2, atol=1e-15)
    assert torch.allclose(b**2, tau**2 - (a * n) ** 2, atol=1e-15)


def test_transport_from_clean_data_is_plain_noising():
    tau = taus_above(0.0)
    a, b = transport(0.0, tau)
    assert torch.equal(a, 1 - tau)
    assert torch.allclose(b, tau, rtol=1e-15)


@pytest.mark.parametrize("n", LEVELS)
def test_two_transports_compose_to_one(n):
    middle = n + 0.4 * (1 - n)
    tau = taus_above(middle)
    a1, b1 = transport(n, double(middle))
    a2, b2 = transport(middle, tau)
    a, b = transport(n, tau)
    assert torch.allclose(a2 * a1, a, atol=1e-14)
    assert torch.allclose((a2 * b1) ** 2 + b2**2, b**2, atol=1e-14)


def test_transported_samples_have_the_law_of_direct_noising():
    rng = torch.Generator().manual_seed(0)
    count, n, level = 40_000, 0.5, 0.8

    def noise():
        return torch.randn(count, generator=rng, dtype=torch.float64)

    def data():
        mode = torch.randint(2, (count,), generator=rng, dtype=torch.float64)
        return 3 * mode - 1 + 0.3 * noise()

    tau = torch.full((count,), level, dtype=torch.float64)
    x_n = (1 - n) * data() + n * noise()
    transported = renoise(x_n, noise(), n, tau)
    direct = (1 - level) * data() + level * noise()
    assert float(transported.mean()) == pytest.approx(float(direct.mean()), abs=0.02)
    assert float(transported.std()) == pytest.approx(float(direct.std()), abs=0.02)
    assert ks_distance(transported, direct) < 1.63 * (2 / count) ** 0.5


@pytest.mark.parametrize("n", LEVELS)
def test_the_mixed_noise_form_is_the_same_map(n):
    rng = torch.Generator().manual_seed(1)
    clean, noise, fresh = torch.randn((3, 50, 2, 1, 1), generator=rng, dtype=torch.float64)
    tau = taus_above(n)
    x_n = (1 - n) * clean + n * noise
    a, b = (part.reshape(-1, 1, 1, 1) for part in transport(n, tau))
    level = tau.reshape(-1, 1, 1, 1)
    mixed = (a * n * noise + b * fresh) / level
    assert torch.allclose(
        renoise(x_n, fresh, n, tau), (1 - level) * clean + level * mixed, rtol=1e-14, atol=1e-14
    )


@pytest.mark.parametrize("n", LEVELS)
def test_the_exact_velocity_is_the_derivative_of_the_path(n):
    rng = torch.Generator().manual_seed(2)
    x_n, noise = torch.randn((2, 50, 3, 1, 1), generator=rng, dtype=torch.float64)
    tau, h = n + (1 - n) * torch.linspace(0.05, 0.95, 50, dtype=torch.float64), 1e-6
    slope = (renoise(x_n, noise, n, tau + h) - renoise(x_n, noise, n, tau - h)) / (2 * h)
    assert torch.allclose(conditional_velocity(x_n, noise, n, tau), slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("n", LEVELS)
def test_kappa_is_the_derivative_of_b(n):
    tau = taus_above(n).requires_grad_()
    _, b = transport(n, tau)
    (slope,) = torch.autograd.grad(b.sum(), tau)
    assert torch.allclose(kappa(n, tau), slope, rtol=1e-12)


@pytest.mark.parametrize("n", LEVELS)
def test_kappa_times_b_has_its_closed_form(n):
    tau = taus_above(n)
    a, b = transport(n, tau)
    assert torch.allclose(kappa(n, tau) * b, tau + a * n**2 / (1 - n), rtol=1e-14)


@pytest.mark.parametrize("n", LEVELS)
def test_the_mean_of_the_exact_velocity_is_the_mixtures_velocity(n):
    """E[u | x_tau] by the modes' joint Gaussians, against the world's own score."""
    world = ToyWorld(double(-1.2, 0.7).reshape(2, 1), double(0.3, 0.7)[None], std=0.4)
    tau = n + (1 - n) * torch.linspace(0.05, 0.98, 40, dtype=torch.float64)
    x = torch.linspace(-3, 3, 40, dtype=torch.float64)
    a, b = transport(n, tau)
    means, inner = (1 - n) * world.means_MD[:, 0], (1 - n) ** 2 * world.std**2 + n**2
    total = (a**2 * inner + b**2)[:, None]
    gap = x[:, None] - a[:, None] * means
    share = (world.weights_LM[0].log() - gap**2 / (2 * total)).softmax(-1)
    x_n = (share * (means + a[:, None] * inner / total * gap)).sum(-1)
    noise = (x - a * x_n) / b
    expected = -x_n / (1 - n) + kappa(n, tau) * noise
    velocity = world.velocity(x.reshape(-1, 1, 1, 1), tau, world.conditioning([0] * 40)).flatten()
    assert torch.allclose(expected, velocity, rtol=1e-12, atol=1e-12)


def test_at_the_last_slot_both_fake_targets_are_noise_minus_data():
    rng = torch.Generator().manual_seed(3)
    clean, noise = torch.randn((2, 20, 2, 1, 1), generator=rng, dtype=torch.float64)
    tau = taus_above(0.0, 20)
    exact = conditional_velocity(clean, noise, 0.0, tau)
    assert torch.allclose(kappa(0.0, tau), torch.ones_like(tau), rtol=1e-15)
    assert torch.allclose(exact, noise - clean, atol=1e-14)
    config = AlgorithmConfig().fake_score
    assert config.target == "clean_pred"
    _, target, weight = fake_score_target(clean, clean, noise, 0.0, tau, config)
    assert torch.allclose(target, exact, atol=1e-13)
    assert torch.equal(weight, torch.ones_like(tau))


@pytest.mark.parametrize(
    ("grid", "expected", "squares"),
    [
        (INTEGER_GRID, (20.3, 9.8, 4.4, 1.0), (57.0, 9.9, 2.35, 1.0)),
        (boundaries(SamplerConfig()), (20.4, 9.8, 4.4, 1.0), (57.9, 9.9, 2.36, 1.0)),
    ],
    ids=["integer", "nominal"],
)
def test_kappa_at_the_lowest_tau_and_its_mean_square_match_the_table(grid, expected, squares):
    r = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for n, top, square in zip(grid[1:], expected, squares, strict=True):
        lowest = tau_from_uniform(double(0.0), n, 0.0, 3.0, 0.02)
        assert float(kappa(n, lowest)) == pytest.approx(top, abs=0.05)
        over_law = kappa(n, tau_from_uniform(r, n, 0.0, 3.0, 0.02)).square().mean()
        assert float(over_law) == pytest.approx(square, rel=0.006)


@pytest.mark.parametrize(
    ("n", "tau_min", "expected"),
    [
        (0.899, 0.0, 0.9085),
        (0.749, 0.0, 0.7637),
        (0.499, 0.0, 0.5250),
        (0.499, 0.55, 0.5735),
        (0.5, 0.0, 0.5260),
        (0.0, 0.0, 0.0577),
        (0.0, 0.25, 0.290),
        (0.0, 0.30, 0.337),
        (0.0, 0.40, 0.431),
        (0.0, 0.55, 0.5735),
    ],
)
def test_the_lower_bounds_of_tau_match_the_table(n, tau_min, expected):
    bound = shift_sigma(tau_lower_bound(n, tau_min, 3.0, 0.02), 3.0)
    assert bound == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("n", LEVELS)
def test_tau_is_uniform_in_the_source_coordinate_above_its_bound(n):
    rng = torch.Generator().manual_seed(4)
    r = torch.rand(20_000, generator=rng, dtype=torch.float64)
    tau = tau_from_uniform(r, n, 0.25, 3.0, 0.02)
    lo = tau_lower_bound(n, 0.25, 3.0, 0.02)
    assert float(tau.min()) >= shift_sigma(lo, 3.0)
    assert float(tau.max()) < 1.0
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    spread = (unshift_sigma(tau, 3.0) - lo) / (1 - lo)
    assert ks_distance(spread, uniform) < 1.63 * (2 / 20_000) ** 0.5


def test_surrogate_slots_are_weighted_one_two_three_four():
    assert torch.allclose(surrogate_slot_weights(4), double(0.1, 0.2, 0.3, 0.4), rtol=1e-15)


def test_full_noise_is_an_ordinary_level():
    a, b = transport(0.5, double(1.0))
    assert (float(a), float(b)) == (0.0, 1.0)
    assert torch.isfinite(kappa(0.5, double(1.0))).all()


def test_just_above_the_boundary_the_variance_stays_positive():
    for n in LEVELS:
        tau = torch.tensor([n + 2e-4], dtype=torch.float32)
        _, b = transport(n, tau)
        assert float(b) > 0
        assert torch.isfinite(kappa(n, tau)).all()


@pytest.mark.parametrize("tau", [0.5, 0.50005, 0.4])
def test_tau_at_or_below_the_boundary_is_refused(tau):
    with pytest.raises(ValueError, match=r"not above n=0\.5"):
        transport(0.5, double(0.9, tau))


@pytest.mark.parametrize("n", [1.0, -0.1])
def test_a_boundary_of_pure_noise_is_refused(n):
    with pytest.raises(ValueError, match="allowed 0 <= n < 1"):
        transport(n, double(1.0))


@pytest.mark.parametrize("offset", [0.02, 0.5])
def test_the_range_of_tau_is_never_empty(offset):
    finest = boundaries(SamplerConfig(num_steps=49))
    for n in finest[1:]:
        lo = tau_lower_bound(n, 0.97, 3.0, offset)
        assert lo < 1
        transport(n, tau_from_uniform(double(0.0), n, 0.0, 3.0, offset))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: SamplerConfig(num_steps=50), "num_steps=50"),
        (lambda: SurrogateConfig(tau_min=0.99), "tau_min=0.99"),
        (lambda: AlgorithmConfig(tau_offset=0.0), "tau_offset=0.0"),
    ],
)
def test_a_setting_that_would_empty_the_range_is_refused(make, named):
    with pytest.raises(ValueError, match=named):
        make()
