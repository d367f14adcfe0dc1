"""Scores a stored pipeline folder on its world's held-out prompts, tag by tag.

Sticker boards are judged by GenEval's rules, signs by what the OCR engine reads.

python benchmarks/teacher_score.py services/demo/models/teacher --images 512 --guidance 3
python benchmarks/teacher_score.py services/demo/words/models/teacher --world words
"""

import argparse
import json
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from services.demo.detector import detect
from services.demo.worlds import WORLDS
from services.evaluation.grid import draw_grid
from services.reward.contract import RewardInput
from services.reward.geneval_rules import objects_by_class, relations_between, score_soft
from services.reward.geneval_rules import score_strict as strict
from services.reward.ocr import OcrReward
from tdm_core.types import Prompt

log = logging.getLogger(__name__)


def load(folder: Path) -> StableDiffusion3Pipeline:
    """The stored pipeline in float32."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline, size: tuple[int, int], prompts: list[str], given, seed: int) -> np.ndarray:
    """uint8 images (N, H, W, 3), one a prompt, from one seed."""
    rng = torch.Generator().manual_seed(seed)
    height, width = size
    made = pipeline(
        prompts,
        num_inference_steps=given.steps,
        guidance_scale=given.guidance,
        max_sequence_length=0,
        height=height,
        width=width,
        generator=rng,
        output_type="np",
    ).images
    return np.rint(made * 255).astype(np.uint8)


def score_signs(images: np.ndarray, prompts: list[dict]) -> dict:
    """The OCR reward and the share read exactly, by tag; and the commonest misreadings."""
    rows, reward, misread = defaultdict(list), OcrReward(find_lines=False), []
    for number, (image, metadata) in enumerate(zip(images, prompts, strict=True)):
        prompt = Prompt(str(number), metadata["prompt"], metadata)
        verdict = reward.evaluate([RewardInput(image, prompt, number, 0, 0)])[0]
        rows[metadata["tag"]].append((verdict.value, verdict.parts["exact"]))
        if not verdict.parts["exact"]:
            misread.append(f"{metadata['text']}: {verdict.reason}")
    flat = np.concatenate([np.array(found) for found in rows.values()])
    return {
        "images": len(images),
        "ocr": round(float(flat[:, 0].mean()), 4),
        "exact": round(float(flat[:, 1].mean()), 4),
        "by_tag_ocr_exact": {
            tag: np.mean(found, axis=0).round(3).tolist() for tag, found in rows.items()
        },
        "misread": misread[:8],
    }


def score_boards(images: np.ndarray, prompts: list[dict]) -> dict:
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
    parser.add_argument("--world", choices=WORLDS, default="stickers")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--shift", type=float, default=None)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--grid", type=Path, help="write a PNG of the first 64 images")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pipeline = load(given.folder)
    if given.shift:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=given.shift)
    world = WORLDS[given.world]
    size = (world.shape.height, world.shape.width)
    heldout = world.heldout()
    prompts = [heldout[place % len(heldout)] for place in range(given.images)]
    images = np.concatenate(
        [
            generate(
                pipeline,
                size,
                [one["prompt"] for one in prompts[start : start + 128]],
                given,
                given.seed + start,
            )
            for start in range(0, len(prompts), 128)
        ]
    )
    score = score_signs if given.world == "words" else score_boards
    log.info(json.dumps(score(images, prompts)))
    if given.grid:
        captions = [one["prompt"] for one in prompts]
        shown = torch.from_numpy(images[:64]).permute(0, 3, 1, 2)
        draw_grid(shown, captions[:64], columns=8).save(given.grid)


if __name__ == "__main__":
    main()
