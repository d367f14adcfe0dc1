"""Preference models that are a CLIP: PickScore, HPSv2, CLIP score, and the aesthetic heads.

With c the cosine of image and prompt:
    pickscore    exp(logit_scale) c
    hpsv2        c, of the whole image on a black square
    clip_score   max(100 c, 0)
    aesthetic    head(image embedding of length 1); the prompt is not read
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from services.reward import clip
from services.reward.checkpoints import Placement, read_tensors, ready
from services.reward.contract import Answer
from services.reward.score_head import build_head

Images = Sequence[NDArray[np.uint8]]


class _OnClip:
    """Loads CLIP once."""

    weights_need: ClassVar[tuple[str, ...]] = ("config.json",)
    base_need: ClassVar[tuple[str, ...]] = clip.NEEDS

    def __init__(self, weights: Path, base: Path, placement: Placement) -> None:
        self._weights = weights
        self._base = base
        self._placement = placement
        self._loaded: clip.ClipEncoder | None = None

    def prepare(self) -> None:
        """Load CLIP, once."""
        _ = self._clip

    @property
    def _clip(self) -> clip.ClipEncoder:
        self._loaded = self._loaded or clip.load_clip(self._weights, self._base, self._placement)
        return self._loaded


class PickScore(_OnClip):
    """Pick-a-Pic's model, on the scale of its published scores (about 15 to 25)."""

    def score(self, images: Images, prompts: Sequence[str]) -> list[Answer]:
        """exp(logit_scale) times the cosine."""
        return (self._clip.logit_scale * self._clip.similarity(images, prompts)).tolist()


class ClipScore(_OnClip):
    """CLIP's own idea of how well the prompt describes the image."""

    def score(self, images: Images, prompts: Sequence[str]) -> list[Answer]:
        """max(100 x cosine, 0)."""
        return (100 * self._clip.similarity(images, prompts)).clamp(min=0).tolist()


class HpsV2(_OnClip):
    """Human Preference Score v2 and v2.1: no temperature, and no crop."""

    def score(self, images: Images, prompts: Sequence[str]) -> list[Answer]:
        """The cosine (about 0.2 to 0.35)."""
        side, mean, std = self._clip.image_size, *self._clip.pixel_statistics
        pixels = torch.stack([on_black_square(image, side) for image in images])
        embedded = self._clip.embed_pixels((pixels - mean) / std)
        return clip.pairwise_cosines(embedded, self._clip.embed_unique(prompts)).tolist()


class Aesthetic(_OnClip):
    """A linear head or a stack of linear layers over CLIP's image embedding."""

    weights_need: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Path, base: Path, placement: Placement) -> None:
        """`weights` are the head's; `base` is the CLIP that it was trained on."""
        super().__init__(base, base, placement)
        self._head_weights = weights
        self._head: nn.Module | None = None

    def score(self, images: Images, prompts: Sequence[str]) -> list[Answer]:
        """The head's value (about 1 to 10) of every image's embedding."""
        head = self._head = self._head or self._load_head()
        with torch.inference_mode():
            return head(self._clip.embed_images(images)).squeeze(-1).tolist()

    def prepare(self) -> None:
        """Load CLIP and the head, once."""
        self._head = self._head or self._load_head()

    def _load_head(self) -> nn.Module:
        tensors = read_tensors(self._head_weights)
        exact = {name: tensor.float() for name, tensor in tensors.items()}
        head = build_head(exact, self._clip.width, self._head_weights)
        return ready(head, Placement(self._placement.device))  # small: float32 whatever CLIP is in


def on_black_square(image: NDArray[np.uint8], side: int) -> Tensor:
    """(3, side, side) in [0, 1] but for overshoot: the longest side fits, black fills the rest."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    scale = side / max(image.shape[:2])
    height, width = (round(length * scale) for length in image.shape[:2])
    resized = interpolate(
        pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )[0]
    left, top = (side - width) // 2, (side - height) // 2
    return pad(resized, (left, side - width - left, top, side - height - top))
