"""The sign: a short text in one ink and one font, and how it is drawn.

A sign is 64 x 32 px of light ground: four cells of 16 px, one character each, from the left. The
exact place of every character varies (+-0.5 px across, +-1 px down) from one drawing to the next.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, CELL = 64, 32, 16
MOST_CHARACTERS = WIDTH // CELL
GROUND = (245, 243, 236)
INKS = {
    "red": (200, 40, 45),
    "green": (30, 130, 60),
    "blue": (40, 85, 205),
    "black": (30, 30, 34),
}
LETTERS, DIGITS = "AEHKLNPTUXY", "23456789"
"""Characters that fit a cell and that no reader takes for one another, as 0 and O are."""
ALPHABET = LETTERS + DIGITS
FONTS = {
    "Aileron": ("", "", 23),
    "Caladea Bold": ("font_caladea", "CaladeaBold", 23),
    "Fredoka One": ("font_fredoka_one", "FredokaOne", 22),
}
"""Package, name in the package and size in px; the first is Pillow's own font."""
MOST_ACROSS, MOST_DOWN = 0.5, 1.0


@dataclass(frozen=True)
class Sign:
    """What a sign says (1 to 4 characters of `ALPHABET`), in which ink and font."""

    text: str
    ink: str
    font: str


def render(sign: Sign, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The sign drawn once: uint8 RGB (32, 64, 3), anti-aliased."""
    image = np.empty((HEIGHT, WIDTH, 3), dtype=np.float64)
    image[:] = GROUND
    for place, character in enumerate(sign.text):
        right, down = rng.integers(-2, 3, size=2) * (MOST_ACROSS / 2, MOST_DOWN / 2)
        cover = coverage(sign.font, character, float(right), float(down))[..., None]
        cell = image[:, place * CELL : (place + 1) * CELL]
        cell += cover * (np.array(INKS[sign.ink]) - cell)
    return np.rint(image).astype(np.uint8)


@cache
def coverage(
    font: str, character: str, right: float = 0.0, down: float = 0.0
) -> NDArray[np.float64]:
    """The share of each pixel of a cell that the character covers, (32, 16), moved by that much."""
    cell = Image.new("L", (CELL, HEIGHT))
    middle = (CELL / 2 + right, HEIGHT / 2 + down)
    ImageDraw.Draw(cell).text(middle, character, fill=255, font=_loaded(font), anchor="mm")
    return np.asarray(cell, dtype=np.float64) / 255


@cache
def _loaded(font: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    package, name, size = FONTS[font]
    if not package:
        return ImageFont.load_default(size)
    try:
        files = import_module(package).font_files
    except ImportError as error:
        raise ValueError(
            f"the font {font} is not installed: pip install {package.replace('_', '-')} "
            "(it is among tdm-r1[dev]'s packages)"
        ) from error
    return ImageFont.truetype(files[name], size)
