"""Pretrains the bundled tiny teacher on two CPU cores: autoencoder, then transformer and text.

Flow matching: x_s = (1 - s) x0 + s e, the network predicts v = e - x0 at timestep 1000 s, and the
loss is the mean square of its error over logit-normal s. Captions are emptied now and then, so
that the teacher can be guided. Weights are averaged (EMA) and stored as a bf16 diffusers folder.
The bundled teacher is step 900 of a schedule of 2,400, so that it has much left to learn.

    python -m services.demo.pretrain --out DIR --seed 0 --steps 900
"""

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from rich.logging import RichHandler
from rich.progress import track
from torch import Tensor, nn

from services.demo.corpus import build_corpus, draw_board
from services.demo.stickers import CELL, render
from services.demo.tiny_sd3 import CAPTION_TOKENS, build_pipeline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainConfig:
    """What the stored teacher was trained with."""

    seed: int = 0
    num_examples: int = 60_000
    wrong_caption: float = 0.25
    autoencoder_steps: int = 1_000
    autoencoder_batch: int = 64
    autoencoder_lr: float = 2e-3
    latent_noise: float = 0.2
    """what the decoder learns to bear, in standard deviations of the latents"""
    num_dense: int = 6_000
    """crowded boards, and as many of the corpus, that the autoencoder trains on"""
    density: float = 0.6
    """share of cells with a sticker on a crowded board"""
    steps: int = 900
    """optimizer steps of the teacher; it stops here, early in its schedule, with much to learn"""
    schedule_steps: int = 2_400
    """length of the learning rate's cosine"""
    batch: int = 192
    lr: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    empty_caption: float = 0.12
    """share of captions emptied, for guidance"""
    ema_decay: float = 0.995
    sigma_mean: float = 0.7
    """mean of logit(s)"""
    sigma_std: float = 1.0
    save_every: int = 300
    """steps between checkpoints of the averaged weights"""


def pretrain(out: Path, config: PretrainConfig) -> None:
    """Trains everything and leaves the pipeline in `out`; a checkpoint lies there meanwhile."""
    corpus = build_corpus(config.num_examples, config.seed, config.wrong_caption)
    images = torch.from_numpy(corpus.images).permute(0, 3, 1, 2)
    pipeline = build_pipeline(out, config.seed)
    train_autoencoder(pipeline.vae, images, config)
    latents = encode(pipeline.vae, images)
    token_ids = tokenize(pipeline, corpus.captions)
    for step, averaged in train_teacher(pipeline, latents, token_ids, config):
        if step % config.save_every == 0 or step == config.steps:
            save(averaged, out)
            log.info("stored step %d in %s", step, out)


def train_autoencoder(vae: AutoencoderKL, images: Tensor, config: PretrainConfig) -> None:
    """Trains the autoencoder in place on images uint8 (N, 3, 32, 32).

    The latent of a cell is pinned to the whitened principal components of its pixels: the encoder
    regresses them, the decoder restores the image from them under noise. An autoencoder this small,
    left to itself, keeps circle and square too close for a short pretraining to tell them apart.
    """
    rng = torch.Generator().manual_seed(config.seed)
    whiten = principal_components(images[:8192], vae.config.latent_channels)
    images = torch.cat([images[: config.num_dense], dense_images(config)])
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.autoencoder_lr, fused=True)
    started = time.monotonic()
    for step in track(range(config.autoencoder_steps), "autoencoder"):
        _set_lr(optimizer, config.autoencoder_lr, step, config.autoencoder_steps, 50)
        pixels = to_unit(
            images[torch.randint(len(images), (config.autoencoder_batch,), generator=rng)]
        )
        latents = whiten(pixels)
        miss = vae.encode(pixels).latent_dist.mean - latents
        noisy = latents + config.latent_noise * torch.randn(latents.shape, generator=rng)
        error = vae.decode(noisy).sample - pixels
        loss = error.square().mean() + 0.1 * error.abs().mean() + 0.1 * miss.square().mean()
        _step(optimizer, vae.parameters(), loss)
        if step % 100 == 99:
            log.info(
                "autoencoder step %d: image rmse %.4f, latent rmse %.4f, %.0f s",
                step + 1,
                error.detach().square().mean().sqrt(),
                miss.detach().square().mean().sqrt(),
                time.monotonic() - started,
            )
    _freeze_log_variance(vae, math.log(1e-2))


def principal_components(images: Tensor, channels: int) -> Callable[[Tensor], Tensor]:
    """A map from pixels (B, 3, 32, 32) to (B, channels, 4, 4), white over these uint8 images."""
    cells = _cells(to_unit(images)).flatten(0, 2)
    mean = cells.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(cells.T).double())
    basis = (directions[:, -channels:] / variances[-channels:].sqrt()).float()
    return lambda pixels: ((_cells(pixels) - mean) @ basis).permute(0, 3, 1, 2)


def dense_images(config: PretrainConfig) -> Tensor:
    """Crowded boards for the autoencoder, uint8 (num_dense, 3, 32, 32): it sees more stickers."""
    rng = np.random.default_rng([config.seed, config.num_dense, 1])
    boards = [draw_board(config.density, rng) for _ in range(config.num_dense)]
    images = np.stack([render(board, rng) for board in boards])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _cells(pixels: Tensor) -> Tensor:
    """Images (B, 3, 32, 32) as cells (B, 4, 4, 192)."""
    return pixels.unfold(2, CELL, CELL).unfold(3, CELL, CELL).permute(0, 2, 3, 1, 4, 5).flatten(3)


@torch.no_grad()
def _freeze_log_variance(vae: AutoencoderKL, log_variance: float) -> None:
    channels = vae.config.latent_channels
    assert vae.quant_conv is not None, "the autoencoder is built with one"
    assert vae.quant_conv.bias is not None, "and it has a bias"
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = log_variance


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor, batch: int = 256) -> Tensor:
    """Latent means (N, 12, 4, 4) of images uint8 (N, 3, 32, 32)."""
    return torch.cat([vae.encode(to_unit(part)).latent_dist.mean for part in images.split(batch)])


def to_unit(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def tokenize(pipeline: StableDiffusion3Pipeline, captions: tuple[str, ...]) -> Tensor:
    """Token ids (N + 1, CAPTION_TOKENS) of the captions; the last row is the empty caption."""
    texts = [*captions, ""]
    found = pipeline.tokenizer(
        texts, padding="max_length", max_length=CAPTION_TOKENS, return_tensors="pt"
    )
    return found.input_ids


def train_teacher(
    pipeline: StableDiffusion3Pipeline, latents: Tensor, token_ids: Tensor, config: PretrainConfig
) -> Iterator[tuple[int, StableDiffusion3Pipeline]]:
    """Trains transformer and text encoders in place; yields (step, averaged pipeline) each step."""
    rng = torch.Generator().manual_seed(config.seed + 1)
    parts = ("transformer", "text_encoder", "text_encoder_2")
    live = nn.ModuleList([getattr(pipeline, name) for name in parts]).train()
    averages = copy.deepcopy(live).requires_grad_(False).eval()
    averaged = pipeline.__class__(
        **{**pipeline.components, **dict(zip(parts, averages, strict=True))}
    )
    optimizer = torch.optim.AdamW(
        live.parameters(), config.lr, (0.9, 0.99), weight_decay=config.weight_decay, fused=True
    )
    started, losses = time.monotonic(), []
    for step in track(range(1, config.steps + 1), "teacher"):
        _set_lr(optimizer, config.lr, step, config.schedule_steps, config.warmup_steps)
        loss = flow_loss(pipeline, *_draw(latents, token_ids, config, rng), config, rng)
        _step(optimizer, live.parameters(), loss)
        _average(averages, live, min(config.ema_decay, step / (step + 10)))
        losses.append(loss.item())
        if step % 50 == 0:
            log.info(
                "teacher step %d: loss %.4f, %.0f s",
                step,
                np.mean(losses[-50:]),
                time.monotonic() - started,
            )
        yield step, averaged


def flow_loss(
    pipeline: StableDiffusion3Pipeline,
    latents: Tensor,
    token_ids: Tensor,
    config: PretrainConfig,
    rng: torch.Generator,
) -> Tensor:
    """Mean squared error of the velocity at a random s; latents (B, 12, 4, 4), ids (B, tokens)."""
    noise = torch.randn(latents.shape, generator=rng)
    logit = torch.randn(len(latents), generator=rng) * config.sigma_std + config.sigma_mean
    sigma = logit.sigmoid()
    s = sigma.view(-1, 1, 1, 1)
    embeds, pooled = embed(pipeline, token_ids)
    velocity = pipeline.transformer(
        hidden_states=(1 - s) * latents + s * noise,
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        timestep=sigma * 1000,
    ).sample
    return (velocity - (noise - latents)).square().mean()


def embed(pipeline: StableDiffusion3Pipeline, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Prompt embeddings (B, tokens, 192) and pooled ones (B, 192), as the pipeline makes them."""
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
    found = [encoder(token_ids, output_hidden_states=True) for encoder in encoders]
    embeds = torch.cat([one.hidden_states[-2] for one in found], dim=-1)
    return embeds, torch.cat([one.text_embeds for one in found], dim=-1)


def save(pipeline: StableDiffusion3Pipeline, folder: Path) -> None:
    """The pipeline's folder with weights in bf16; the pipeline in memory stays as it is."""
    stored = {
        name: copy.deepcopy(part).to(torch.bfloat16) if isinstance(part, nn.Module) else part
        for name, part in pipeline.components.items()
    }
    pipeline.__class__(**stored).save_pretrained(folder)


def _draw(
    latents: Tensor, token_ids: Tensor, config: PretrainConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(latents), (config.batch,), generator=rng)
    empty = torch.rand(config.batch, generator=rng) < config.empty_caption
    return latents[rows], token_ids[torch.where(empty, len(token_ids) - 1, rows)]


def _set_lr(
    optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warmup: int
) -> None:
    cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = peak * min(step / warmup, 1.0) * cosine


def _step(
    optimizer: torch.optim.Optimizer, parameters: Iterator[nn.Parameter], loss: Tensor
) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


@torch.no_grad()
def _average(averages: nn.Module, live: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averages.parameters()), list(live.parameters()), 1 - decay)


def main() -> None:
    """Command line; every option not given keeps its PretrainConfig value."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    for name in ("seed", "steps", "schedule_steps", "num_examples", "autoencoder_steps", "batch"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--lr", type=float, default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    pretrain(given.pop("out"), PretrainConfig(**given))


if __name__ == "__main__":
    main()
