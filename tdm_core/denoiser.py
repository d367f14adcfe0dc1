"""The one interface a network must offer, and the one place where guidance is applied.

Flow convention: x_s = (1-s) x0 + s e with s in [0, 1], and a denoiser predicts v = e - x0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tdm_core.types import Conditioning


class Denoiser(Protocol):
    """A velocity field v(x, s, c)."""

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Velocity of `latents` (N, C, H, W) at noise levels `sigma` (N,) in (0, 1]; (N, C, H, W).

        `conditioning` holds N rows a tensor. Computed and returned in the latents' dtype.
        """
        ...


def broadcast_rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape (N,) `values` as (N, 1, 1, ...) in `like`'s dtype, to multiply rows of `like`."""
    return values.to(like).reshape(-1, *([1] * (like.dim() - 1)))


def clean_from_velocity(latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """x0hat = x_s - s v (algorithm.md 1). All rows (N, ...), sigma (N,)."""
    return latents - broadcast_rows(sigma, latents) * velocity


def noise_from_velocity(latents: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """ehat = x_s + (1-s) v (algorithm.md 1). All rows (N, ...), sigma (N,)."""
    return latents + broadcast_rows(1 - sigma, latents) * velocity


def velocity_from_clean(latents: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """v = (x_s - x0) / s, for s > 0."""
    return (latents - clean) / broadcast_rows(sigma, latents)


def velocity_from_noise(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """v = (e - x_s) / (1-s), for s < 1: a noise-predicting network is singular at s = 1."""
    return (noise - latents) / broadcast_rows(1 - sigma, latents)


Network = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class CleanDenoiser:
    """A network that predicts x0, as a velocity field."""

    network: Network

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Velocity, see `Denoiser`."""
        return velocity_from_clean(latents, self.network(latents, sigma, conditioning), sigma)


@dataclass(frozen=True)
class NoiseDenoiser:
    """A network that predicts the noise, as a velocity field on s <= `max_sigma`."""

    network: Network
    max_sigma: float = 0.9999

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Velocity, see `Denoiser`; sigma is held below 1, where noise does not tell x0."""
        sigma = sigma.clamp(max=self.max_sigma)
        return velocity_from_noise(latents, self.network(latents, sigma, conditioning), sigma)


def conditional_and_unconditional(
    denoiser: Denoiser,
    latents: Tensor,
    sigma: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
) -> tuple[Tensor, Tensor]:
    """Velocities with the prompt and with the empty prompt, in one call of 2N rows."""
    both = {
        name: torch.cat([rows, expand_rows(unconditional[name], rows.shape[0])])
        for name, rows in conditioning.items()
    }
    velocity = denoiser(torch.cat([latents, latents]), torch.cat([sigma, sigma]), both)
    with_prompt, without_prompt = velocity.chunk(2)
    return with_prompt, without_prompt


def guide(with_prompt: Tensor, without_prompt: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: without + scale (with - without); scale 1 is conditional."""
    return without_prompt + scale * (with_prompt - without_prompt)


def guided_velocity(
    denoiser: Denoiser,
    latents: Tensor,
    sigma: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    scale: float,
) -> Tensor:
    """Velocity (N, C, H, W) under guidance `scale`; no second pass is made at scale 1."""
    if scale == 1.0:
        return denoiser(latents, sigma, conditioning)
    return guide(
        *conditional_and_unconditional(denoiser, latents, sigma, conditioning, unconditional),
        scale,
    )


def expand_rows(rows: Tensor, count: int) -> Tensor:
    """One row as `count` equal rows; `count` rows stay as they are."""
    return rows.expand(count, *rows.shape[1:]) if rows.shape[0] == 1 else rows
