"""The algorithm climbs: whole runs on worlds whose answer is known (docs/algorithm.md 9)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from examples.one_file import TOY, curve, make_roles, train
from tdm_core.batches import fresh_batch
from tdm_core.config import AlgorithmConfig, without_reward
from tdm_core.losses.fake_score import fake_score_loss
from tdm_core.losses.generator import generator_loss
from tdm_core.microbatches import passes
from tdm_core.noise_schedule import boundaries
from tdm_core.optimizer import RoleOptimizer
from tdm_core.sampler import initial_noise, sample
from tdm_core.seeding import rng_for
from tdm_core.toy import two_by_two
from tdm_core.types import Prompt, RolloutGroup
from tests.core_cases import algorithm
from tests.golden.write import GOLDEN_FILE, ITERATIONS

pytestmark = pytest.mark.integration

WORLD = two_by_two(torch.float64)
KL_ONLY = replace(
    without_reward(TOY),
    generator=replace(without_reward(TOY).generator, teacher_guidance=1.0),
)
seeds = pytest.mark.parametrize("seed", [0, 1, 2])


def held_out(generator, label: int, count: int = 1500) -> Tensor:
    """Samples (count, 2) from noise that no training run draws."""
    noise = initial_noise(10**6, label, count, WORLD.latent_shape, WORLD.means_MD)
    path = sample(generator, noise, WORLD.conditioning([label]), TOY.sampler).boundaries_GKCHW
    return path[:, -1].flatten(1).detach()


def shares(samples: Tensor) -> Tensor:
    nearest = torch.cdist(samples, WORLD.means_MD).argmin(1)
    return torch.bincount(nearest, minlength=4) / len(samples)


def energy_distance(samples: Tensor, label: int) -> float:
    """0 where the samples have the label's own distribution."""
    data = WORLD.draw([label] * len(samples), rng_for(0, "data", label)).flatten(1)
    across = 2 * torch.cdist(samples, data).mean()
    return float(across - torch.cdist(samples, samples).mean() - torch.cdist(data, data).mean())


def upper_half(generator) -> float:
    drawn = torch.cat([held_out(generator, label) for label in (0, 1)])
    return float((drawn[:, 1] > 0).double().mean())


def trained(config: AlgorithmConfig, seed: int, iterations: int = 75):
    roles = make_roles(torch.float64)
    for _ in train(config, iterations, seed, roles):
        pass
    return roles


@seeds
def test_with_a_reward_on_the_upper_modes_the_held_out_reward_climbs(seed):
    before = upper_half(make_roles(torch.float64).generator)
    after = upper_half(trained(TOY, seed).generator)
    assert before == pytest.approx(0.5, abs=0.03)
    assert after > 0.85


@seeds
def test_with_the_kl_alone_the_mode_ratio_stays_and_the_samples_come_nearer(seed):
    start = make_roles(torch.float64).generator
    after = trained(KL_ONLY, seed).generator
    for label in (0, 1):
        samples = held_out(after, label)
        assert torch.allclose(shares(samples).double(), WORLD.weights_LM[label], atol=0.06)
        assert energy_distance(samples, label) < 0.6 * energy_distance(
            held_out(start, label), label
        )


def test_the_control_without_reward_stays_where_it_was():
    assert upper_half(trained(without_reward(TOY), 0).generator) == pytest.approx(0.5, abs=0.05)


def test_the_whole_golden_curve_is_reproduced():
    golden = GOLDEN_FILE.read_text().splitlines()
    lines = list(curve(TOY, ITERATIONS))
    assert len(lines) == len(golden)
    assert lines[0] == golden[0]
    for line, expected in zip(lines[1:], golden[1:], strict=True):
        numbers = [[float(word) for word in text.split()] for text in (line, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


GRID = boundaries(AlgorithmConfig().sampler)
PROMPT = {"label": torch.zeros(1, 1, dtype=torch.float64)}


def gaussian_slope(s: Tensor) -> Tensor:
    """v = k(s) x for data N(0, 1)."""
    return (1 - (1 - s) / ((1 - s) ** 2 + s**2)) / s


def gaussian_teacher(latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
    return latents * gaussian_slope(sigma).reshape(-1, 1, 1, 1)


class LinearStudent(nn.Module):
    """x0hat = c_j x at slot j."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.full((4,), 0.1, dtype=torch.float64))

    def forward(self, latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
        levels = torch.tensor(GRID[:4], dtype=sigma.dtype)
        slot = (sigma[:, None] - levels).abs().argmin(1)
        return latents * ((1 - self.c[slot]) / sigma).reshape(-1, 1, 1, 1)

    def spreads(self) -> Tensor:
        """Standard deviation of x at boundaries 1 to K, starting from N(0, 1)."""
        factors = [n / s + (1 - n / s) * c for s, n, c in zip(GRID, GRID[1:], self.c, strict=False)]
        return torch.stack(factors).cumprod(0).detach()


class LinearFakeScore(nn.Module):
    """The teacher's slope plus twelve bumps over the level; one net for all slots."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(12, dtype=torch.float64))

    def forward(self, latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
        centres = torch.linspace(0, 1, 12, dtype=sigma.dtype)
        bumps = (-(((sigma[:, None] - centres) / 0.1) ** 2)).exp()
        return latents * (gaussian_slope(sigma) + bumps @ self.weights).reshape(-1, 1, 1, 1)


def learned_spreads(target: str, iterations: int = 400) -> Tensor:
    """Student and fake score learn together, by their real losses; mean over the last 50."""
    config = algorithm(
        num_groups=1,
        group_size=64,
        slots_per_update=4,
        fake_score={"target": target, "teacher_regulariser": 0.0},
        generator={"teacher_guidance": 1.0, "reward_scale": 0.0},
    )
    theta, f = LinearStudent(), LinearFakeScore()
    rates = {theta: 1e-2, f: 3e-2}
    optimizers = {
        net: RoleOptimizer(list(net.parameters()), lr=lr, betas=(0.0, 0.999), weight_decay=0.0)
        for net, lr in rates.items()
    }
    seen = []
    for step in range(iterations):
        for net, role in optimizers.items():
            role.adamw.param_groups[0]["lr"] = rates[net] * min(1, 2 * (1 - step / iterations))
        noise = initial_noise(0, step, 64, (16, 1, 1), theta.c)
        path = sample(theta, noise, PROMPT, config.sampler)
        batch = fresh_batch([RolloutGroup(step, Prompt("g", "g"), step, path, PROMPT)])
        for p in passes(batch, config, 0, step):
            optimizers[f].backward(fake_score_loss(p, theta, f, gaussian_teacher)[0])
        optimizers[f].step()
        for p in passes(batch, config, 0, step):
            loss, _ = generator_loss(p, theta, f, gaussian_teacher, gaussian_teacher, PROMPT)
            optimizers[theta].backward(loss)
        optimizers[theta].step()
        seen.append(theta.spreads())
    return torch.stack(seen[-50:]).mean(0)


TRUE_SPREADS = torch.tensor([((1 - n) ** 2 + n**2) ** 0.5 for n in GRID[1:]], dtype=torch.float64)


def test_with_the_exact_target_every_boundary_reaches_the_teachers_marginal():
    assert torch.allclose(learned_spreads("conditional_velocity"), TRUE_SPREADS, atol=0.025)


def test_with_the_clean_prediction_the_third_boundary_stays_too_wide():
    found = learned_spreads("clean_pred")
    assert float(found[2]) > float(TRUE_SPREADS[2]) + 0.05
    assert float(found[3]) == pytest.approx(1.0, abs=0.025)
