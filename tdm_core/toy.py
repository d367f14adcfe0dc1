"""A world small enough to know: conditional Gaussian mixtures with the exact score.

Data: x0 ~ sum_k w_k(c) N(mu_k, sigma^2 I) in R^d, seen as latents (d, 1, 1). The exact velocity is
v = (x_s - E[x0 | x_s]) / s, finite at s = 1. Every role starts as this teacher and learns a
residual, so that f and phi start exactly equal to psi, as LoRA adapters with B = 0 do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tdm_core.denoiser import velocity_from_clean
from tdm_core.seeding import rng_for
from tdm_core.types import Conditioning, ImageGroup, RewardRecord

PIXELS_PER_UNIT = 32.0
"""`decode` writes latent 0 as 128 and one unit as this many grey levels."""


@dataclass(frozen=True)
class ToyWorld:
    """L labels (prompts), each a mixture over the same M modes."""

    means_MD: Tensor
    """(M, d) mode centres."""
    weights_LM: Tensor
    """(L, M) mode weights of each label, rows sum to 1."""
    std: float
    """Standard deviation inside a mode."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(d, 1, 1)."""
        return (self.means_MD.shape[1], 1, 1)

    def conditioning(self, labels: Sequence[int]) -> dict[str, Tensor]:
        """Rows {"mode_weights": (N, M)} of the given labels."""
        return {"mode_weights": self.weights_LM[torch.tensor(list(labels))]}

    @property
    def unconditional(self) -> dict[str, Tensor]:
        """One row: the labels' mean mixture."""
        return {"mode_weights": self.weights_LM.mean(0, keepdim=True)}

    def posterior_mean(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """E[x0 | x_s], rows (N, d, 1, 1)."""
        x = latents.flatten(1)[:, None, :]
        s = sigma.to(x).reshape(-1, 1, 1)
        means = self.means_MD.to(x)[None]
        variance = (1 - s) ** 2 * self.std**2 + s**2
        gap = x - (1 - s) * means
        log_weight = conditioning["mode_weights"].to(x).log()
        logits = log_weight - gap.square().sum(-1) / (2 * variance[..., 0])
        share = logits.softmax(-1)[..., None]
        inside = means + (1 - s) * self.std**2 / variance * gap
        return (share * inside).sum(1).reshape(latents.shape)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """The exact velocity field: a `Denoiser`."""
        clean = self.posterior_mean(latents, sigma, conditioning)
        return velocity_from_clean(latents, clean, sigma)

    def draw(self, labels: Sequence[int], rng: torch.Generator) -> Tensor:
        """Exact samples x0 (N, d, 1, 1), one a label."""
        weights = self.weights_LM[torch.tensor(list(labels))]
        mode = torch.multinomial(weights, 1, generator=rng).squeeze(1)
        noise = torch.randn(
            (len(mode), self.means_MD.shape[1]), generator=rng, dtype=self.means_MD.dtype
        )
        return (self.means_MD[mode] + self.std * noise).reshape(-1, *self.latent_shape)


def two_by_two(dtype: torch.dtype = torch.float32) -> ToyWorld:
    """The standard toy: four modes at the corners (+-1.5, +-1.5), two labels.

    Label 0 has the left pair likelier, label 1 the right pair; up and down are even, so a reward on
    the upper half is something that the teacher does not know.
    """
    means = torch.tensor([[-1.5, -1.5], [-1.5, 1.5], [1.5, -1.5], [1.5, 1.5]], dtype=dtype)
    weights = torch.tensor([[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]], dtype=dtype)
    return ToyWorld(means, weights, std=0.3)


class ToyDenoiser(nn.Module):
    """The exact teacher plus a residual MLP whose last layer starts at zero."""

    def __init__(self, world: ToyWorld, hidden: int = 64, seed: int = 0) -> None:
        """Same seed, same weights; dtype follows the world."""
        super().__init__()
        self.world = world
        dims, modes = world.means_MD.shape[1], world.means_MD.shape[0]
        dtype = world.means_MD.dtype
        self.inner = nn.Linear(dims + modes + 2, hidden, dtype=dtype)
        self.middle = nn.Linear(hidden, hidden, dtype=dtype)
        self.outer = nn.Linear(hidden, dims, dtype=dtype)
        rng = rng_for(seed, "toy_denoiser")
        with torch.no_grad():
            for layer in (self.inner, self.middle):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=rng)
                layer.bias.zero_()
            self.outer.weight.zero_()
            self.outer.bias.zero_()

    def forward(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Velocity, see `Denoiser`."""
        flat = latents.flatten(1)
        level = sigma.to(flat).reshape(-1, 1)
        features = torch.cat(
            [flat, conditioning["mode_weights"].to(flat), level, level.square()], dim=1
        )
        hidden = torch.tanh(self.inner(features))
        hidden = torch.tanh(self.middle(hidden))
        residual = self.outer(hidden).reshape(latents.shape)
        return self.world.velocity(latents, sigma, conditioning) + residual


def decode(latents: Tensor) -> Tensor:
    """Latents (N, d, 1, 1) as images (N, 3, 1, d) uint8: 128 + 32 x in every channel."""
    grey = (128 + PIXELS_PER_UNIT * latents.flatten(1)).round().clamp(0, 255).to(torch.uint8)
    return grey[:, None, None, :].expand(-1, 3, 1, -1).contiguous()


class UpperHalfReward:
    """1 when the second coordinate is above 0, judged on pixels: a reward without a gradient."""

    name = "upper_half"
    version = "1"

    def evaluate(self, groups: Sequence[ImageGroup]) -> list[RewardRecord]:
        """One ready record for each sample and slot."""
        return [
            RewardRecord(
                group_id=group.group_id,
                sample=g,
                slot=s,
                reward=self.name,
                state="ready",
                value=float(group.images_GS3HW[g, s, 0, 0, 1] > 128),
                version=self.version,
            )
            for group in groups
            for g in range(group.images_GS3HW.shape[0])
            for s in range(group.images_GS3HW.shape[1])
        ]
