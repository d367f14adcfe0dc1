"""The few-step solvers, and the replay of one of their steps (docs/algorithm.md 1)."""

import pytest
import torch

from tdm_core.batches import fresh_batch
from tdm_core.config import SamplerConfig
from tdm_core.denoiser import clean_from_velocity, noise_from_velocity, velocity_from_clean
from tdm_core.losses.replay import replay_step
from tdm_core.noise_schedule import boundaries
from tdm_core.sampler import (
    clean_predictions,
    initial_noise,
    sample,
    sample_teacher,
    second_order_coefficient,
    solver_step,
)
from tdm_core.toy import ToyWorld, two_by_two
from tdm_core.types import Prompt, RolloutGroup
from tests.core_cases import Recorder, algorithm, one_pass

pytestmark = pytest.mark.unit

WORLD = two_by_two(torch.float64)
SAMPLERS = [
    SamplerConfig(num_steps=steps, solver=solver, grid=grid)
    for steps in (1, 2, 4, 6)
    for solver in ("euler", "dpmpp_2m")
    for grid in ("nominal", "discrete")
]
sampler_named = pytest.mark.parametrize(
    "sampler", SAMPLERS, ids=lambda s: f"{s.solver}-{s.grid}-{s.num_steps}"
)


def start(rows: int = 6) -> torch.Tensor:
    return initial_noise(0, 0, rows, WORLD.latent_shape, WORLD.means_MD)


def rolled_out(sampler: SamplerConfig):
    return sample(WORLD.velocity, start(), WORLD.conditioning([0]), sampler)


def test_an_euler_step_mixes_the_predicted_data_and_noise():
    rng = torch.Generator().manual_seed(0)
    x, v = torch.randn((2, 5, 2, 1, 1), generator=rng, dtype=torch.float64)
    s, n = 0.75, 0.5
    sigma = torch.full((5,), s, dtype=torch.float64)
    stepped = solver_step(x, v, None, 2, boundaries(SamplerConfig()), SamplerConfig())
    mixed = (1 - n) * clean_from_velocity(x, v, sigma) + n * noise_from_velocity(x, v, sigma)
    assert torch.allclose(stepped, mixed, atol=1e-15)


@sampler_named
def test_the_exact_velocity_of_one_point_leads_to_that_point(sampler):
    point = torch.tensor([0.7, -1.1], dtype=torch.float64).reshape(1, 2, 1, 1)

    def velocity(latents, sigma, conditioning):
        return velocity_from_clean(latents, point.expand_as(latents), sigma)

    path = sample(velocity, start(), {}, sampler).boundaries_GKCHW
    assert torch.allclose(path[:, -1], point.expand_as(path[:, -1]), atol=1e-14)


@sampler_named
def test_replay_reproduces_the_rollout(sampler):
    trajectory = rolled_out(sampler)
    group = RolloutGroup(0, Prompt("p", "p"), 0, trajectory, WORLD.conditioning([0]))
    config = algorithm(num_groups=1, sampler=vars(sampler))
    for slot in range(sampler.num_steps):
        p = one_pass(fresh_batch([group]), config, slot)
        replayed = replay_step(p, WORLD.velocity)
        stored = trajectory.boundaries_GKCHW[:, slot + 1]
        assert torch.allclose(replayed.x_n, stored, rtol=1e-12, atol=1e-12)


@sampler_named
def test_clean_predictions_are_the_ones_the_rollout_made(sampler):
    trajectory = rolled_out(sampler)
    path, sigmas = trajectory.boundaries_GKCHW, trajectory.sigmas
    predictions = clean_predictions(path, sigmas, sampler)
    for k in range(sampler.num_steps):
        sigma = torch.full((6,), sigmas[k], dtype=torch.float64)
        made = WORLD.posterior_mean(path[:, k], sigma, WORLD.conditioning([0] * 6))
        assert torch.allclose(predictions[:, k], made, atol=1e-12)
    assert torch.allclose(predictions[:, -1], path[:, -1], atol=1e-12)


def test_second_order_coefficients_match_the_table_between_the_ends():
    config = SamplerConfig(solver="dpmpp_2m", grid="discrete")
    found = [second_order_coefficient(boundaries(config), k, config) for k in range(4)]
    assert found == pytest.approx([0.0, 0.0157, 0.1669, 0.0], abs=5e-5)


def test_on_the_nominal_grid_the_step_after_pure_noise_is_first_order():
    config = SamplerConfig(solver="dpmpp_2m")
    found = [second_order_coefficient(boundaries(config), k, config) for k in range(4)]
    assert found == pytest.approx([0.0, 0.0, 1 / 6, 0.0])


def test_euler_has_no_second_order_term():
    config = SamplerConfig(grid="discrete")
    assert not any(second_order_coefficient(boundaries(config), k, config) for k in range(4))


def test_the_second_order_solver_is_nearer_to_the_exact_path():
    means = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    world = ToyWorld(means, torch.ones(1, 1, dtype=torch.float64), std=0.7)
    rows = world.conditioning([0])
    noise = initial_noise(0, 0, 50, world.latent_shape, means)
    exact = sample_teacher(
        world.velocity, noise, world.conditioning([0] * 50), world.unconditional, 600, 3.0, 1.0
    )

    def error(solver) -> float:
        config = SamplerConfig(num_steps=24, solver=solver, grid="discrete")
        made = sample(world.velocity, noise, rows, config).boundaries_GKCHW[:, -1]
        return float((made - exact).abs().mean())

    assert error("dpmpp_2m") < 0.2 * error("euler")


def test_one_conditioning_row_serves_the_whole_group():
    shared = rolled_out(SamplerConfig())
    each = sample(WORLD.velocity, start(), WORLD.conditioning([0] * 6), SamplerConfig())
    assert torch.equal(shared.boundaries_GKCHW, each.boundaries_GKCHW)


def test_the_student_is_asked_once_a_step_and_without_guidance():
    recorder = Recorder(WORLD.velocity)
    sample(recorder, start(), WORLD.conditioning([0]), SamplerConfig())
    assert [len(latents) for latents, _ in recorder.calls] == [6] * 4
    asked = [float(sigma[0]) for _, sigma in recorder.calls]
    assert asked == list(boundaries(SamplerConfig())[:-1])


def test_starting_noise_depends_on_seed_and_group_alone():
    torch.manual_seed(1)
    first = start()
    torch.manual_seed(2)
    assert torch.equal(start(), first)
    other = initial_noise(0, 1, 6, WORLD.latent_shape, WORLD.means_MD)
    reseeded = initial_noise(1, 0, 6, WORLD.latent_shape, WORLD.means_MD)
    assert not torch.equal(other, first)
    assert not torch.equal(reseeded, first)


def test_many_guided_teacher_steps_at_scale_one_reach_the_modes():
    labels = [0, 1] * 200
    noise = torch.randn((400, 2, 1, 1), generator=torch.Generator().manual_seed(0)).double()
    made = sample_teacher(
        WORLD.velocity, noise, WORLD.conditioning(labels), WORLD.unconditional, 40, 3.0, 1.0
    )
    nearest = torch.cdist(made.flatten(1), WORLD.means_MD).argmin(1)
    left = (nearest[::2] < 2).double().mean()
    assert float(left) == pytest.approx(0.8, abs=0.06)
    spread = (made.flatten(1) - WORLD.means_MD[nearest]).std()
    assert float(spread) == pytest.approx(WORLD.std, abs=0.05)


def test_guidance_moves_the_teacher_further_to_its_prompts_side():
    noise = torch.randn((400, 2, 1, 1), generator=torch.Generator().manual_seed(0)).double()
    rows, empty = WORLD.conditioning([0] * 400), WORLD.unconditional
    plain = sample_teacher(WORLD.velocity, noise, rows, empty, 20, 3.0, 1.0)
    guided = sample_teacher(WORLD.velocity, noise, rows, empty, 20, 3.0, 3.0)
    assert float(guided[:, 0].mean()) < float(plain[:, 0].mean()) - 0.2
