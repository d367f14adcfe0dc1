"""GenEval's colours: CLIP, zero-shot, on the crop of an object whose background is grey.

A colour's embedding is the mean over three prompts, of length 1; the nearest colour is the answer.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from services.reward.checkpoints import Placement
from services.reward.clip import ClipEncoder, load_clip

COLORS = (
    *("red", "orange", "yellow", "green", "blue"),
    *("purple", "pink", "brown", "black", "white"),
)
PROMPTS = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)
GREY = 0x99

Crop = NDArray[np.uint8]


class ColorClassifier:
    """Names the colour of objects of a class; `prepare`, or the first crops, load CLIP."""

    def __init__(self, weights: Path, placement: Placement) -> None:
        """`weights` is a folder as transformers writes it."""
        self._weights = weights
        self._placement = placement
        self._clip: ClipEncoder | None = None
        self._colors_by_class: dict[str, Tensor] = {}

    def name_colors(self, crops: Sequence[Crop], class_names: Sequence[str]) -> list[str]:
        """One of `COLORS` for every crop (`crop_object`) of an object of the class beside it."""
        if not crops:
            return []
        clip = self._encoder()
        crops_ND = clip.embed_images(crops)
        colors_NCD = torch.stack([self._colors_of(clip, name) for name in class_names])
        nearest = torch.einsum("nd,ncd->nc", crops_ND, colors_NCD).argmax(dim=1)
        return [COLORS[index] for index in nearest.tolist()]

    def prepare(self) -> None:
        """Load CLIP, once."""
        self._encoder()

    def _encoder(self) -> ClipEncoder:
        self._clip = self._clip or load_clip(self._weights, self._weights, self._placement)
        return self._clip

    def _colors_of(self, clip: ClipEncoder, class_name: str) -> Tensor:
        """(10, D) embeddings of the colours of this class."""
        if class_name not in self._colors_by_class:
            texts = [text.format(color=c, name=class_name) for c in COLORS for text in PROMPTS]
            prompts = clip.embed_texts(texts).unflatten(0, (len(COLORS), len(PROMPTS)))
            self._colors_by_class[class_name] = normalize(prompts.mean(dim=1), dim=-1)
        return self._colors_by_class[class_name]


def crop_object(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], box: tuple[float, float, float, float]
) -> Crop:
    """The box's pixels (h, w, 3) of an image (H, W, 3), #999 wherever the mask (H, W) is False."""
    left, top, right, bottom = (round(edge) for edge in box)
    rows, columns = slice(top, bottom), slice(left, right)
    return np.where(mask[rows, columns, None], image[rows, columns], np.uint8(GREY))
