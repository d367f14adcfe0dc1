"""Trains a world's autoencoder, its latents pinned to principal components of the pixels.

The latent of a cell is pinned to the whitened principal components of its pixels: the encoder
regresses them, the decoder restores the image from them under noise. An autoencoder this small,
left to itself, keeps circle and square too close for a short pretraining to tell them apart.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from torch import Tensor

from services.demo.schedule import descend, set_lr
from services.demo.tiny_sd3 import CELL

log = logging.getLogger(__name__)
MOST_FITTED = 8192
"""Images that the components are computed from, at most."""
Whiten = Callable[[Tensor], Tensor]
"""Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, H/8, W/8)."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """How it is trained."""

    steps: int = 1_000
    """optimizer steps"""
    batch: int = 64
    lr: float = 2e-3
    latent_noise: float = 0.2
    """what the decoder learns to bear, in standard deviations of the latents"""
    num_images: int = 6_000
    """images of the corpus, and as many that no prompt describes, that it trains on"""


def train_autoencoder(
    vae: AutoencoderKL, images: Tensor, whiten: Whiten, config: AutoencoderConfig, seed: int
) -> None:
    """Trains `vae` in place on images uint8 (N, 3, H, W), its latents pinned to `whiten`'s."""
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, fused=True)
    started = time.monotonic()
    for step in track(range(config.steps), "autoencoder"):
        set_lr(optimizer, config.lr, step, config.steps, 50)
        pixels = to_unit(images[torch.randint(len(images), (config.batch,), generator=rng)])
        latents = whiten(pixels)
        miss = vae.encode(pixels).latent_dist.mean - latents
        noisy = latents + config.latent_noise * torch.randn(latents.shape, generator=rng)
        error = vae.decode(noisy).sample - pixels
        loss = error.square().mean() + 0.1 * error.abs().mean() + 0.1 * miss.square().mean()
        descend(optimizer, vae.parameters(), loss)
        if step % 100 == 99:
            log.info(
                "autoencoder step %d: image rmse %.4f, latent rmse %.4f, %.0f s",
                step + 1,
                error.detach().square().mean().sqrt(),
                miss.detach().square().mean().sqrt(),
                time.monotonic() - started,
            )
    _freeze_log_variance(vae, math.log(1e-2))


def principal_components(images: Tensor, channels: int) -> Whiten:
    """A map from pixels (B, 3, H, W) to (B, channels, H/8, W/8), white over these uint8 images."""
    cells = _cells(to_unit(images[:MOST_FITTED])).flatten(0, 2)
    mean = cells.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(cells.T).double())
    basis = (directions[:, -channels:] / variances[-channels:].sqrt()).float()
    return lambda pixels: ((_cells(pixels) - mean) @ basis).permute(0, 3, 1, 2)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch: int = 256) -> Tensor:
    """Latent means (N, C, H/8, W/8) of images uint8 (N, 3, H, W)."""
    return torch.cat([vae.encode(to_unit(part)).latent_dist.mean for part in images.split(batch)])


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _cells(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) as cells (B, H/8, W/8, 192)."""
    return pixels.unfold(2, CELL, CELL).unfold(3, CELL, CELL).permute(0, 2, 3, 1, 4, 5).flatten(3)


@torch.no_grad()
def _freeze_log_variance(vae: AutoencoderKL, log_variance: float) -> None:
    channels = vae.config.latent_channels
    assert vae.quant_conv is not None, "the autoencoder is built with one"
    assert vae.quant_conv.bias is not None, "and it has a bias"
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = log_variance
