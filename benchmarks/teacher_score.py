"""Scores a stored pipeline folder on the held-out prompts by GenEval's rules, tag by tag.

python benchmarks/teacher_score.py services/demo/models/teacher --images 512 --guidance 3
"""

import argparse
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from PIL import Image

from services.demo.detector import detect
from services.demo.prompts import heldout_prompts, train_prompts
from services.reward.geneval_rules import objects_by_class, relations_between, score_soft
from services.reward.geneval_rules import score_strict as strict

log = logging.getLogger(__name__)


def load(folder: Path) -> StableDiffusion3Pipeline:
    """The stored pipeline in float32."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline, prompts: list[str], steps: int, guidance: float, seed: int) -> np.ndarray:
    """uint8 images (N, 32, 32, 3), one a prompt, from one seed."""
    rng = torch.Generator().manual_seed(seed)
    made = pipeline(
        prompts,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=0,
        height=32,
        width=32,
        generator=rng,
        output_type="np",
    ).images
    return np.rint(made * 255).astype(np.uint8)


def score(images: np.ndarray, prompts: list[dict]) -> dict:
    """Strict and soft scores by tag, and how often a relation holds given both its objects."""
    rows, holds = defaultdict(list), []
    for image, metadata in zip(images, prompts, strict=True):
        seen = detect(image)
        rows[metadata["tag"]].append((strict(metadata, seen)[0], score_soft(metadata, seen)))
        if metadata["tag"] == "position":
            objects = objects_by_class(metadata, seen)
            target, moved = (objects.get(one["class"]) for one in metadata["include"])
            if target and moved:
                relation = metadata["include"][1]["position"][0]
                holds.append(relation in relations_between(moved[0].box, target[0].box))
    by_tag = {tag: np.mean(found, axis=0).round(3).tolist() for tag, found in rows.items()}
    flat = np.concatenate([np.array(found, dtype=float) for found in rows.values()])
    return {
        "images": len(images),
        "strict": round(float(flat[:, 0].mean()), 4),
        "strict_mean_of_tags": round(float(np.mean([one[0] for one in by_tag.values()])), 4),
        "soft": round(float(flat[:, 1].mean()), 4),
        "by_tag_strict_soft": by_tag,
        "relation_given_both": [round(float(np.mean(holds)), 3) if holds else None, len(holds)],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--shift", type=float, default=None)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--split", choices=("heldout", "train"), default="heldout")
    parser.add_argument("--grid", type=Path, help="write a PNG of the first 64 images")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load(given.folder)
    if given.shift:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=given.shift)
    prompts = heldout_prompts() if given.split == "heldout" else train_prompts()
    prompts = [prompts[place % len(prompts)] for place in range(given.images)]
    images = np.concatenate(
        [
            generate(
                pipeline,
                [one["prompt"] for one in prompts[start : start + 128]],
                given.steps,
                given.guidance,
                given.seed + start,
            )
            for start in range(0, len(prompts), 128)
        ]
    )
    log.info(json.dumps(score(images, prompts)))
    if given.grid:
        shown = images[:128:2].reshape(8, 8, 32, 32, 3).transpose(0, 2, 1, 3, 4)
        Image.fromarray(shown.reshape(256, 256, 3)).resize((1024, 1024), 0).save(given.grid)


if __name__ == "__main__":
    main()
