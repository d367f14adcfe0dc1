"""Objects by Mask2Former, as GenEval's detector reports them: class, confidence, box, mask.

Every (query, class) pair is a candidate. Its confidence is the class probability times the mean
mask probability inside the mask, the mask is where the logit, enlarged to the image, is above 0,
and the box is the mask's, its far edges exclusive.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from services.reward.checkpoints import Placement, load_pretrained, ready
from services.reward.geneval_rules import Box

NEEDS = ("config.json", "preprocessor_config.json")
GENEVAL_NAMES = {
    **{"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"},
    **{"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch"},
    **{"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv"},
}
"""COCO's names, in either spelling that checkpoints use, where GenEval says it otherwise."""


@dataclass(frozen=True)
class Instance:
    """One object found."""

    class_name: str
    """In GenEval's words."""
    score: float
    """Confidence in [0, 1]."""
    box: Box
    """(x0, y0, x1, y1) in pixels of the image, y pointing down."""
    mask: NDArray[np.bool_]
    """(H, W), True on the object."""
    color: str | None = None
    """One of the ten colours, where a clause asks for it."""


@dataclass(frozen=True)
class Frame:
    """Three sizes (height, width) between the network's masks and the image."""

    padded: tuple[int, int]
    """Of the batch that the network saw."""
    valid: tuple[int, int]
    """Of this image in it, at the top left; the rest is padding."""
    image: tuple[int, int]
    """Of the image itself."""


class Mask2Former:
    """The detector; `prepare`, or the first images, load its weights."""

    def __init__(self, weights: Path, placement: Placement, floor: float) -> None:
        """`weights` is a folder as transformers writes it; less confident than `floor` is left."""
        self._weights = weights
        self._placement = placement
        self._floor = floor
        self._loaded: tuple[Any, Any] | None = None
        self.classes = class_names(weights)

    def prepare(self) -> None:
        """Load the weights, once."""
        self._loaded = self._loaded or self._load()

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[list[Instance]]:
        """What is in each RGB image (H, W, 3); images of one size go through together."""
        found: dict[int, list[Instance]] = {}
        for size in dict.fromkeys(image.shape[:2] for image in images):
            places = [i for i, image in enumerate(images) if image.shape[:2] == size]
            batch = self._detect([images[i] for i in places], size)
            found.update(zip(places, batch, strict=True))
        return [found[i] for i in range(len(images))]

    @torch.inference_mode()
    def _detect(
        self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int]
    ) -> list[list[Instance]]:
        model, processor = self._loaded = self._loaded or self._load()
        inputs = processor([Image.fromarray(image) for image in images], return_tensors="pt")
        pixels = inputs.pixel_values.to(model.device, model.dtype)
        outputs = model(pixel_values=pixels, pixel_mask=inputs.pixel_mask.to(model.device))
        height, width = inputs.pixel_mask.shape[1:]
        return [
            instances_of(
                outputs.class_queries_logits[i].float(),
                outputs.masks_queries_logits[i].float(),
                Frame((height, width), valid_size(inputs.pixel_mask[i]), size),
                self.classes,
                self._floor,
            )
            for i in range(len(images))
        ]

    def _load(self) -> tuple[Any, Any]:
        from transformers import (
            Mask2FormerForUniversalSegmentation,
            Mask2FormerImageProcessorPil,
        )

        model = load_pretrained(Mask2FormerForUniversalSegmentation, self._weights)
        processor = Mask2FormerImageProcessorPil.from_pretrained(
            self._weights, local_files_only=True
        )
        return ready(model, self._placement), processor


def class_names(weights: Path) -> tuple[str, ...]:
    """The checkpoint's classes in GenEval's words, by index."""
    labels: dict[str, str] = json.loads((weights / "config.json").read_text()).get("id2label", {})
    names = [labels[key] for key in sorted(labels, key=int)]
    return tuple(GENEVAL_NAMES.get(name, name) for name in names)


def valid_size(pixel_mask_HW: Tensor) -> tuple[int, int]:
    """(height, width) of the ones at the top left of a pixel mask."""
    return int(pixel_mask_HW[:, 0].sum()), int(pixel_mask_HW[0].sum())


def instances_of(
    class_logits_QC: Tensor,
    mask_logits_Qhw: Tensor,
    frame: Frame,
    classes: Sequence[str],
    floor: float,
) -> list[Instance]:
    """Objects more confident than `floor`; the last class logit is "no object"."""
    probabilities = class_logits_QC.softmax(dim=-1)[:, :-1].flatten()
    best, index = probabilities.topk(min(len(class_logits_QC), len(probabilities)))
    # Confidence is at most the class probability: enlarge only the masks that can pass.
    best, index = best[best > floor], index[best > floor]
    logits_NHW = enlarged(mask_logits_Qhw[index // len(classes)], frame)
    inside_NHW = logits_NHW > 0
    area = inside_NHW.sum(dim=(1, 2))
    mask_scores = (logits_NHW.sigmoid() * inside_NHW).sum(dim=(1, 2)) / (area + 1e-6)
    scores = (best * mask_scores).tolist()
    return [
        Instance(classes[int(index[i]) % len(classes)], scores[i], box_of(inside), inside)
        for i, inside in enumerate(inside_NHW.cpu().numpy())
        if area[i] > 0 and scores[i] > floor
    ]


def enlarged(logits_Nhw: Tensor, frame: Frame) -> Tensor:
    """Mask logits (N, H, W) at the image's size: to the batch's size, padding off, to the image."""
    if not len(logits_Nhw):
        return logits_Nhw.new_zeros((0, *frame.image))
    height, width = frame.valid
    in_batch = _resized(logits_Nhw[None], frame.padded)[:, :, :height, :width]
    return _resized(in_batch, frame.image)[0]


def box_of(mask: NDArray[np.bool_]) -> Box:
    """(x0, y0, x1, y1) around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _resized(logits_1NHW: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(logits_1NHW, size=size, mode="bilinear", align_corners=False)
