"""A classical sticker detector that sees pixels only: sliding colour templates, then suppression.

At every place the 8x8 window is compared with each colour and shape, moved by quarters of a pixel.
With w the window and t the template, both as differences from the ground, the misfit is
    r = |w - t| / |t|
0 for a perfect sticker, 1 for bare ground, 0.5 for one at half strength; the score is a logistic
of it. Of overlapping finds the best stays.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from services.demo.stickers import CELL, COLORS, EXTENTS, GROUND, PALETTE, SHAPES, coverage

PHASES = (-0.25, 0.25)
MISFIT_AT_HALF = 0.42
MISFIT_WIDTH = 0.045
LEAST_SCORE = 0.02
MIN_DISTANCE = 5.0
PADDING = 1


@dataclass(frozen=True)
class Detection:
    """One sticker found; score in [0, 1], box (x0, y0, x1, y1) in pixels, y pointing down."""

    class_name: str
    color: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Templates:
    """T templates: differences from the ground (T, 192) in float32, squared norms (T,), labels."""

    differences: NDArray[np.float32]
    energies: NDArray[np.float32]
    labels: tuple[tuple[str, str, float, float], ...]


def detect(image: NDArray[np.uint8]) -> list[Detection]:
    """Stickers in an RGB image, uint8 (H, W, 3), best first."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image has shape {image.shape} and type {image.dtype}; "
            "the detector takes uint8 (H, W, 3), so convert to RGB bytes first"
        )
    templates = _templates()
    misfits, top_left = _misfits(image, templates)
    best = misfits.argmin(axis=1)
    scores = _score(misfits[np.arange(len(best)), best])
    found: list[Detection] = []
    centers: list[tuple[float, float]] = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] < LEAST_SCORE:
            break
        shape, color, down, right = templates.labels[best[place]]
        y, x = top_left[place][0] + CELL / 2 + down, top_left[place][1] + CELL / 2 + right
        if any(max(abs(y - cy), abs(x - cx)) < MIN_DISTANCE for cy, cx in centers):
            continue
        centers.append((y, x))
        w, h = EXTENTS[shape]
        box = (float(x - w / 2), float(y - h / 2), float(x + w / 2), float(y + h / 2))
        found.append(Detection(shape, color, float(scores[place]), box))
    return found


def _misfits(
    image: NDArray[np.uint8], templates: Templates
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Misfit of each window with each template (P, T), and the windows' top left corners (P, 2)."""
    bare = np.array(GROUND, dtype=np.float32)
    pad = ((PADDING, PADDING), (PADDING, PADDING), (0, 0))
    difference = np.pad(image.astype(np.float32) - bare, pad)
    windows = sliding_window_view(difference, (CELL, CELL), axis=(0, 1))
    rows, columns = windows.shape[:2]
    flat = windows.reshape(rows * columns, -1)
    squared = (
        (flat**2).sum(axis=1)[:, None] - 2 * flat @ templates.differences.T + templates.energies
    )
    corners = np.indices((rows, columns)).reshape(2, -1).T - PADDING
    return np.sqrt(np.maximum(squared, 0) / templates.energies), corners


@cache
def _templates() -> Templates:
    labels = tuple(product(SHAPES, COLORS, PHASES, PHASES))
    rows = [
        coverage(shape, down, right) * (np.array(PALETTE[color]) - GROUND)[:, None, None]
        for shape, color, down, right in labels
    ]
    differences = np.stack(rows).reshape(len(labels), -1).astype(np.float32)
    return Templates(differences, (differences**2).sum(axis=1), labels)


def _score(misfit: NDArray[np.float32]) -> NDArray[np.floating]:
    return 1 / (1 + np.exp((misfit - MISFIT_AT_HALF) / MISFIT_WIDTH))
