"""Velocity, epsilon and x0 networks are one interface; guidance is applied in one place."""

import pytest
import torch

from tdm_core.denoiser import (
    CleanDenoiser,
    NoiseDenoiser,
    clean_from_velocity,
    conditional_and_unconditional,
    expand_rows,
    guide,
    guided_velocity,
    noise_from_velocity,
    velocity_from_clean,
    velocity_from_noise,
)
from tdm_core.toy import two_by_two
from tests.core_cases import Recorder

pytestmark = pytest.mark.unit

WORLD = two_by_two(torch.float64)
ROWS = WORLD.conditioning([0, 1, 0, 1, 0])
SIGMA = torch.tensor([0.06, 0.3, 0.5, 0.9, 0.99], dtype=torch.float64)
X = torch.randn((5, 2, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = WORLD.velocity(X, SIGMA, ROWS)


def clean_network(latents, sigma, conditioning):
    return clean_from_velocity(latents, WORLD.velocity(latents, sigma, conditioning), sigma)


def noise_network(latents, sigma, conditioning):
    return noise_from_velocity(latents, WORLD.velocity(latents, sigma, conditioning), sigma)


@pytest.mark.parametrize(
    "denoiser", [CleanDenoiser(clean_network), NoiseDenoiser(noise_network)], ids=["x0", "epsilon"]
)
def test_clean_and_noise_networks_give_the_same_velocity(denoiser):
    assert torch.allclose(denoiser(X, SIGMA, ROWS), V, rtol=1e-10, atol=1e-10)


def test_the_four_conversions_undo_one_another():
    clean, noise = clean_from_velocity(X, V, SIGMA), noise_from_velocity(X, V, SIGMA)
    assert torch.allclose(velocity_from_clean(X, clean, SIGMA), V, atol=1e-12)
    assert torch.allclose(velocity_from_noise(X, noise, SIGMA), V, atol=1e-12)
    assert torch.allclose(noise - clean, V, atol=1e-12)


def test_at_full_noise_a_noise_network_stays_finite():
    ones = torch.ones(5, dtype=torch.float64)
    assert torch.isfinite(NoiseDenoiser(lambda x, s, c: x)(X, ones, ROWS)).all()
    assert torch.isfinite(WORLD.velocity(X, ones, ROWS)).all()


def test_guidance_extrapolates_from_the_empty_prompt():
    empty = WORLD.velocity(X, SIGMA, {"mode_weights": WORLD.unconditional["mode_weights"]})
    both = conditional_and_unconditional(WORLD.velocity, X, SIGMA, ROWS, WORLD.unconditional)
    assert torch.allclose(both[0], V, atol=1e-15)
    assert torch.allclose(both[1], empty, atol=1e-15)
    guided = guided_velocity(WORLD.velocity, X, SIGMA, ROWS, WORLD.unconditional, 4.5)
    assert torch.allclose(guided, empty + 4.5 * (V - empty), atol=1e-14)
    assert torch.equal(guide(V, empty, 0.0), empty)


def test_no_second_pass_is_made_at_scale_one():
    recorder = Recorder(WORLD.velocity)
    plain = guided_velocity(recorder, X, SIGMA, ROWS, WORLD.unconditional, 1.0)
    assert torch.equal(plain, V)
    assert [len(latents) for latents, _ in recorder.calls] == [5]


def test_one_row_expands_and_several_stay():
    assert expand_rows(WORLD.unconditional["mode_weights"], 3).shape == (3, 4)
    assert expand_rows(ROWS["mode_weights"], 5) is ROWS["mode_weights"]
