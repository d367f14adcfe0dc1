"""Pretrains a bundled world's teacher on two CPU cores: autoencoder, then transformer and text.

Flow matching: x_s = (1 - s) x0 + s e, the network predicts v = e - x0 at timestep 1000 s, and the
loss is the mean square of its error over logit-normal s. Captions are emptied now and then, so
that the teacher can be guided. Weights are averaged (EMA) and stored as a bf16 diffusers folder.
The bundled teachers stop early in their schedules (`SETTINGS`), so that they have much to learn.

    python -m services.demo.pretrain --world stickers --out DIR
"""

import argparse
import copy
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from numpy.typing import NDArray
from rich.logging import RichHandler
from rich.progress import track
from torch import Tensor, nn

from services.demo.autoencoder import (
    AutoencoderConfig,
    Whiten,
    encode,
    principal_components,
    to_unit,
    train_autoencoder,
)
from services.demo.schedule import descend, set_lr
from services.demo.tiny_sd3 import build_pipeline
from services.demo.worlds import WORLDS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainConfig:
    """What a stored teacher was trained with."""

    world: str = "stickers"
    """one of `WORLDS`"""
    seed: int = 0
    num_examples: int = 60_000
    wrong_caption: float = 0.25
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    exact_latents: bool = False
    """the teacher learns the components that the encoder is pinned to, not the encoder's latents"""
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


SETTINGS = {
    "stickers": PretrainConfig(),
    "words": PretrainConfig(
        "words",
        num_examples=24_000,
        autoencoder=AutoencoderConfig(steps=800, batch=32, lr=3e-3),
        exact_latents=True,
        steps=300,
    ),
}
"""What the bundled teachers were trained with, by world."""


def pretrain(out: Path, config: PretrainConfig) -> None:
    """Trains everything and leaves the pipeline in `out`; a checkpoint lies there meanwhile."""
    world = WORLDS[config.world]
    corpus = world.build_corpus(config.num_examples, config.seed, config.wrong_caption)
    images = to_channels(corpus.images)
    pipeline = build_pipeline(out, world.shape, config.seed)
    whiten = principal_components(images, world.shape.latent_channels)
    fit_autoencoder(pipeline.vae, images, whiten, config)
    if config.exact_latents:
        latents = torch.cat([whiten(to_unit(part)) for part in images.split(256)])
    else:
        latents = encode(pipeline.vae, images)
    token_ids = tokenize(pipeline, corpus.captions)
    for step, averaged in train_teacher(pipeline, latents, token_ids, config):
        if step % config.save_every == 0 or step == config.steps:
            save(averaged, out)
            log.info("stored step %d in %s", step, out)


def fit_autoencoder(
    vae: AutoencoderKL, images: Tensor, whiten: Whiten, config: PretrainConfig
) -> None:
    """Trains it on images of the corpus and as many that no prompt describes."""
    count = config.autoencoder.num_images
    crowd = to_channels(WORLDS[config.world].crowd(count, config.seed))
    both = torch.cat([images[:count], crowd])
    train_autoencoder(vae, both, whiten, config.autoencoder, config.seed)


def to_channels(images: NDArray[np.uint8]) -> Tensor:
    """Images (N, H, W, 3) as (N, 3, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def tokenize(pipeline: StableDiffusion3Pipeline, captions: tuple[str, ...]) -> Tensor:
    """Token ids (N + 1, tokens) of the captions; the last row is the empty caption."""
    found = pipeline.tokenizer([*captions, ""], padding="max_length", return_tensors="pt")
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
        set_lr(optimizer, config.lr, step, config.schedule_steps, config.warmup_steps)
        loss = flow_loss(pipeline, *_draw(latents, token_ids, config, rng), config, rng)
        descend(optimizer, live.parameters(), loss)
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
    """Mean squared error of the velocity at a random s; latents (B, C, h, w), ids (B, tokens)."""
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


@torch.no_grad()
def _average(averages: nn.Module, live: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averages.parameters()), list(live.parameters()), 1 - decay)


def main() -> None:
    """Command line; every option not given keeps the world's setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--world", choices=SETTINGS, default="stickers")
    for name in ("seed", "steps", "schedule_steps", "num_examples", "batch"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=argparse.SUPPRESS)
    parser.add_argument("--lr", type=float, default=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    pretrain(given.pop("out"), replace(SETTINGS[given["world"]], **given))


if __name__ == "__main__":
    main()
