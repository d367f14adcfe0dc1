"""The toy world's score, samples and reward are exact."""

import pytest
import torch

from tdm_core.seeding import rng_for
from tdm_core.toy import ToyDenoiser, ToyWorld, UpperHalfReward, decode, two_by_two
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.unit

WORLD = two_by_two(torch.float64)


def test_the_posterior_mean_agrees_with_numerical_integration():
    means = torch.tensor([[-1.0], [0.8]], dtype=torch.float64)
    world = ToyWorld(means, torch.tensor([[0.3, 0.7]], dtype=torch.float64), std=0.4)
    clean = torch.linspace(-6, 6, 24_001, dtype=torch.float64)
    prior = sum(
        w * (-((clean - m) ** 2) / (2 * 0.4**2)).exp() for m, w in ((-1.0, 0.3), (0.8, 0.7))
    )
    for s, x in ((0.1, 0.5), (0.5, -0.3), (0.9, 1.2)):
        weight = prior * (-((x - (1 - s) * clean) ** 2) / (2 * s**2)).exp()
        expected = (weight * clean).sum() / weight.sum()
        found = world.posterior_mean(
            torch.full((1, 1, 1, 1), x, dtype=torch.float64),
            torch.tensor([s], dtype=torch.float64),
            world.conditioning([0]),
        )
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)


def test_samples_have_the_labels_mode_shares():
    drawn = WORLD.draw([0] * 4000, rng_for(0, "draw")).flatten(1)
    nearest = torch.cdist(drawn, WORLD.means_MD).argmin(1)
    shares = torch.bincount(nearest, minlength=4) / 4000
    assert torch.allclose(shares.double(), WORLD.weights_LM[0], atol=0.03)
    assert (drawn - WORLD.means_MD[nearest]).std().item() == pytest.approx(0.3, abs=0.01)


def test_every_role_starts_exactly_as_the_teacher():
    rows, x = WORLD.conditioning([0, 1]), torch.randn((2, 2, 1, 1), dtype=torch.float64)
    sigma = torch.tensor([0.4, 1.0], dtype=torch.float64)
    net = ToyDenoiser(WORLD, seed=5)
    assert torch.equal(net(x, sigma, rows), WORLD.velocity(x, sigma, rows))
    same = ToyDenoiser(WORLD, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), same.parameters(), strict=True))


def test_a_picture_is_the_latent_in_grey_levels():
    latents = torch.tensor([[0.0, 1.0], [-4.0, 9.0]]).reshape(2, 2, 1, 1)
    assert decode(latents).shape == (2, 3, 1, 2)
    assert decode(latents)[:, 0, 0].tolist() == [[128, 160], [0, 255]]


def test_the_reward_is_one_above_the_middle():
    latents = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]]).reshape(3, 2, 1, 1)
    group = ImageGroup(4, Prompt("p", "p"), 0, decode(latents)[:, None])
    records = UpperHalfReward().evaluate([group])
    assert [(r.group_id, r.sample, r.slot, r.value) for r in records] == [
        (4, 0, 0, 1.0),
        (4, 1, 0, 0.0),
        (4, 2, 0, 0.0),
    ]
