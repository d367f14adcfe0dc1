"""Prompts to PNG files, in the generator's K steps."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from services.models.backbone import Backbone
from services.saved_generator import SavedGenerator
from tdm_core.config import SamplerConfig
from tdm_core.sampler import sample
from tdm_core.seeding import normal, rng_for

BATCH_IMAGES = 16


def sample_images(
    saved: SavedGenerator, prompts: Sequence[str], out: Path, num_per_prompt: int = 1, seed: int = 0
) -> Iterator[Path]:
    """Write `num_per_prompt` images of each prompt into `out`; yields every file as it is written.

    Image n of prompt p depends on (seed, p, n) alone. Each PNG carries its prompt and seed as text.
    """
    if num_per_prompt < 1:
        raise ValueError(f"num_per_prompt={num_per_prompt}: at least 1")
    backbone = saved.load()
    out.mkdir(parents=True, exist_ok=True)
    wanted = [(p, n) for p in range(len(prompts)) for n in range(num_per_prompt)]
    for first in range(0, len(wanted), BATCH_IMAGES):
        places = wanted[first : first + BATCH_IMAGES]
        texts = [prompts[p] for p, _ in places]
        images = _generate(backbone, saved.sampler, texts, places, seed)
        for (p, n), text, image in zip(places, texts, images, strict=True):
            path = out / f"{p:04d}_{n:02d}_{_slug(text)}.png"
            _write(path, image, text, seed)
            yield path


@torch.no_grad()
def _generate(
    backbone: Backbone,
    sampler: SamplerConfig,
    texts: Sequence[str],
    places: Sequence[tuple[int, int]],
    seed: int,
) -> Tensor:
    like = torch.empty(0, dtype=backbone.dtype, device=backbone.device)
    noise = torch.stack(
        [normal(backbone.latent_shape, rng_for(seed, "sample", *place), like) for place in places]
    )
    denoiser, conditioning = backbone.denoiser("generator"), backbone.encode_prompts(texts)
    path = sample(denoiser, noise, conditioning, sampler)
    return backbone.decode(path.boundaries_GKCHW[:, -1])


def _write(path: Path, image_3HW: Tensor, text: str, seed: int) -> None:
    facts = PngInfo()
    facts.add_itxt("prompt", text)
    facts.add_text("seed", str(seed))
    Image.fromarray(image_3HW.permute(1, 2, 0).numpy()).save(path, pnginfo=facts)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "prompt"
