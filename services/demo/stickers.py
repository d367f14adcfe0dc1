"""The sticker board: what can stand on it and how it is drawn.

A board is 4 x 4 cells of 8 px on a light ground. A sticker fills most of one cell; its exact
place (+-0.25 px) and its shade (+-8%) vary from one drawing to the next.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

CELL = 8
GRID = 4
SIZE = CELL * GRID
GROUND = (245, 243, 236)
PALETTE = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (45, 98, 214),
    "yellow": (240, 190, 30),
}
COLORS = tuple(PALETTE)
SHAPES = ("circle", "square", "triangle")
EXTENTS = {"circle": (6.8, 6.8), "square": (6.8, 6.8), "triangle": (7.0, 6.4)}
MAX_OFFSET = 0.25
MAX_SHADE = 0.08
SUBPIXELS = 8


@dataclass(frozen=True)
class Sticker:
    """One sticker: its shape and colour, and its cell (row 0 is the top, column 0 the left)."""

    shape: str
    color: str
    row: int
    column: int


Board = tuple[Sticker, ...]


def render(board: Board, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The board drawn once: uint8 RGB (32, 32, 3), anti-aliased."""
    image = np.empty((SIZE, SIZE, 3), dtype=np.float64)
    image[:] = GROUND
    for sticker in board:
        down, right = rng.integers(-4, 5, size=2) * (MAX_OFFSET / 4)
        shade = 1 + rng.uniform(-MAX_SHADE, MAX_SHADE)
        color = np.minimum(np.array(PALETTE[sticker.color]) * shade, 255)
        cover = coverage(sticker.shape, float(down), float(right))[..., None]
        top, left = sticker.row * CELL, sticker.column * CELL
        cell = image[top : top + CELL, left : left + CELL]
        cell += cover * (color - cell)
    return np.rint(image).astype(np.uint8)


@cache
def coverage(shape: str, down: float = 0.0, right: float = 0.0) -> NDArray[np.float64]:
    """The share of each pixel of a cell that the shape covers, (8, 8), when moved by that much."""
    fine = (np.arange(CELL * SUBPIXELS) + 0.5) / SUBPIXELS - CELL / 2
    y, x = fine[:, None] - down, fine[None, :] - right
    width, height = EXTENTS[shape]
    if shape == "circle":
        inside = x**2 + y**2 <= (width / 2) ** 2
    elif shape == "square":
        inside = (abs(x) <= width / 2) & (abs(y) <= height / 2)
    else:
        depth = (y + height / 2) / height
        inside = (depth >= 0) & (depth <= 1) & (abs(x) <= depth * width / 2)
    return inside.reshape(CELL, SUBPIXELS, CELL, SUBPIXELS).mean(axis=(1, 3))
