"""What finds GenEval's objects in images: the bundled detector, one of yours, or COCO's classes.

COCO's classes are seen by Mask2Former and their colours by CLIP, which is asked only of the objects
whose colour a clause demands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from services.reward.contract import RewardInput
from services.reward.custom import load_attribute
from services.reward.geneval_rules import DetectedObject, objects_by_class

DETECTOR_WEIGHTS = "facebook/mask2former-swin-small-coco-instance"
COLOR_WEIGHTS = "openai/clip-vit-large-patch14"
Detect = Callable[[NDArray[np.uint8]], Sequence[DetectedObject]]


class Sight(Protocol):
    """Finds objects in a batch of images; it may read what each prompt asks for."""

    @property
    def version(self) -> str:
        """Changes whenever the same image could show other objects."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """What it can see; empty where that is unknown."""
        ...

    @property
    def colors(self) -> Sequence[str]:
        """What colours it names; empty where that is unknown."""
        ...

    def prepare(self) -> None:
        """Load what it needs, once, where it will work."""
        ...

    def look(self, batch: Sequence[RewardInput]) -> Sequence[Sequence[DetectedObject]]:
        """The objects in every image, in the same order."""
        ...


@dataclass(frozen=True)
class FunctionSight:
    """A function that looks at one image and names colours itself."""

    version: str
    classes: Sequence[str]
    colors: Sequence[str]
    detect: Detect

    def prepare(self) -> None:
        """Nothing to load."""

    def look(self, batch: Sequence[RewardInput]) -> list[Sequence[DetectedObject]]:
        """The objects in every image, in the same order."""
        return [self.detect(item.image) for item in batch]


class CocoSight:
    """Mask2Former for the objects, CLIP for the colours that clauses ask for."""

    def __init__(
        self,
        limits: tuple[float, float],
        weights: str = DETECTOR_WEIGHTS,
        clip: str = COLOR_WEIGHTS,
        **placement: str,
    ) -> None:
        """`limits` are the rules' two thresholds; see docs/rewards.md for the others."""
        # Imported here, since no other detector needs torch's models.
        from services.reward import clip as clip_model
        from services.reward import mask2former
        from services.reward.checkpoints import Placement, find_weights, fingerprint
        from services.reward.clip_colors import COLORS, ColorClassifier

        detector_folder = find_weights(weights, "weights", mask2former.NEEDS)
        clip_folder = find_weights(clip, "clip", clip_model.NEEDS)
        where = Placement(**placement)
        self._limits = limits
        self._detector = mask2former.Mask2Former(detector_folder, where, min(limits))
        self._colors = ColorClassifier(clip_folder, where)
        self.classes: Sequence[str] = self._detector.classes
        self.colors: Sequence[str] = COLORS
        digest = fingerprint(detector_folder, clip_folder)
        self.version = f"mask2former:{where.dtype}:{digest}"

    def prepare(self) -> None:
        """Load the detector and CLIP, once."""
        self._detector.prepare()
        self._colors.prepare()

    def look(self, batch: Sequence[RewardInput]) -> list[list[DetectedObject]]:
        """The objects in every image, in the same order; coloured where a clause asks."""
        from services.reward.clip_colors import crop_object

        seen = self._detector.detect([item.image for item in batch])
        asked = [
            (item.image, found)
            for item, objects in zip(batch, seen, strict=True)
            for found in wanting_color(item.prompt.metadata, objects, self._limits)
        ]
        crops = [crop_object(image, found.mask, found.box) for image, found in asked]
        names = self._colors.name_colors(crops, [found.class_name for _, found in asked])
        colors = {id(found): name for (_, found), name in zip(asked, names, strict=True)}
        return [
            [replace(found, color=colors.get(id(found))) for found in objects] for objects in seen
        ]


def wanting_color(
    metadata: Mapping[str, Any], objects: Sequence[Any], limits: tuple[float, float]
) -> list[Any]:
    """The objects whose colour an `include` clause reads, each once."""
    usable = objects_by_class(metadata, objects, *limits)
    counts: dict[str, int] = {}
    for clause in metadata.get("include", []):
        if "color" in clause:
            counts[clause["class"]] = max(clause["count"], counts.get(clause["class"], 0))
    return [found for name, count in counts.items() for found in usable.get(name, [])[:count]]


def open_sight(detector: str, limits: tuple[float, float], models: Mapping[str, str]) -> Sight:
    """The sight that the options name; `models` are the options that only mask2former takes."""
    if detector == "mask2former":
        return CocoSight(limits, **models)
    if models:
        raise ValueError(
            f"options {', '.join(models)} are for detector=mask2former, and it is {detector!r}; "
            "leave them out or change the detector"
        )
    if detector == "stickers":
        # Imported here, since no other detector needs the demo's world.
        from services.demo.detector import detect
        from services.demo.stickers import COLORS, SHAPES

        return FunctionSight(detector, SHAPES, COLORS, detect)
    if not detector.startswith("python:"):
        raise ValueError(
            f"option detector={detector!r}: allowed are stickers, mask2former, or your own as "
            "python:module:function"
        )
    return _own_sight(detector)


def _own_sight(detector: str) -> FunctionSight:
    """Your function; its `version` follows its name, so that another one gives another version."""
    detect = load_attribute(detector)
    if not callable(detect):
        raise ValueError(
            f"option detector={detector!r} is {detect!r}; name a function that takes an image"
        )
    version = getattr(detect, "version", "")
    if not isinstance(version, str):
        raise ValueError(
            f"option detector={detector!r} has the version {version!r}; a text is allowed, such as "
            '"2"'
        )
    name = f"{detector}@{version}" if version else detector
    return FunctionSight(name, (), (), cast(Detect, detect))
