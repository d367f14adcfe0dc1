"""How much people would like an image for its prompt: published preference models, by name."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.reward.checkpoints import Placement, find_checkpoint, find_weights, fingerprint
from services.reward.contract import Answer, RewardInput


class Scorer(Protocol):
    """One family's formula."""

    def prepare(self) -> None:
        """Load the models, once, where they will work."""
        ...

    def score(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Answer]:
        """One answer an RGB image (H, W, 3), in the same order."""
        ...


@dataclass(frozen=True)
class Family:
    """Where a family's formula is, and the weights that its authors published in our formats."""

    module: str
    class_name: str
    weights: str | None = None
    base: str | None = None
    requires: tuple[str, ...] = ("prompt", "image")
    asked: bool = False


_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_CLIP_L = "openai/clip-vit-large-patch14"
_CLIP = "services.reward.clip_preference"
FAMILIES: Mapping[str, Family] = {
    "pickscore": Family(_CLIP, "PickScore", "yuvalkirstain/PickScore_v1", _CLIP_H),
    "hpsv2": Family(_CLIP, "HpsV2", None, _CLIP_H),
    "clip_score": Family(_CLIP, "ClipScore", _CLIP_L),
    "aesthetic": Family(_CLIP, "Aesthetic", None, _CLIP_L, requires=("image",)),
    "image_reward": Family(
        "services.reward.image_reward", "ImageReward", None, "google-bert/bert-base-uncased"
    ),
    "hpsv3": Family(
        "services.reward.hpsv3", "HpsV3", "MizzenAI/HPSv3", "Qwen/Qwen2-VL-7B-Instruct", asked=True
    ),
    "unified_reward": Family(
        "services.reward.unified_reward",
        "UnifiedReward",
        "CodeGoat24/UnifiedReward-qwen-7b",
        asked=True,
    ),
}


class PreferenceReward:
    """The score that one published model gives."""

    def __init__(
        self,
        model: str,
        weights: str | None = None,
        base: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        prompt_file: str | None = None,
    ) -> None:
        """See docs/rewards.md: `weights` are the family's own, `base` is what they build on."""
        if model not in FAMILIES:
            raise ValueError(f"option model={model!r}: allowed are {', '.join(FAMILIES)}")
        family = FAMILIES[model]
        scorer_class = getattr(importlib.import_module(family.module), family.class_name)
        weights = weights or family.weights
        if weights is None:
            raise ValueError(
                f"option weights is missing: model {model!r} is not published as safetensors; "
                "docs/rewards.md says where it is and how to convert it"
            )
        question = _question_file(model, family, prompt_file)
        own = find_weights(weights, "weights", scorer_class.weights_need)
        below = find_checkpoint(base or family.base or weights, "base", scorer_class.base_need)
        self.requires = family.requires
        self.version = f"1:{model}:{dtype}:{fingerprint(own, below, *question)}"
        self._scorer: Scorer = scorer_class(own, below, Placement(device, dtype), *question)

    def prepare(self) -> None:
        """Load the models, once."""
        self._scorer.prepare()

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The model's score of every image."""
        images = [item.image for item in batch]
        return self._scorer.score(images, [item.prompt.text for item in batch])


def _question_file(model: str, family: Family, prompt_file: str | None) -> list[Path]:
    """The file with what the model is asked, alone in a list; empty for one that is not asked."""
    if not family.asked:
        if prompt_file is not None:
            raise ValueError(f"option prompt_file: model {model!r} is not asked; leave it out")
        return []
    if prompt_file is None or not Path(prompt_file).is_file():
        raise ValueError(
            f"option prompt_file={prompt_file!r} is no file: model {model!r} needs the text that "
            "it was trained to read, {prompt} in the prompt's place; see docs/rewards.md"
        )
    return [Path(prompt_file)]
