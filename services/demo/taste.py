"""Simulated people's taste: how likely a person likes a sticker board, from its pixels alone.

    like_rate = MOST * sigmoid((coolness - LIMIT) / WIDTH)
`coolness` is the share of all ink that is blue or green, in [0, 1]: these people like cool colours,
whatever was asked for. No prompt says so and no other reward knows it.
"""

import numpy as np
from numpy.typing import NDArray

from services.demo.stickers import GROUND, PALETTE

COOL = ("green", "blue")
LIMIT = 0.5
"""Coolness at which half of the people who may like it do."""
WIDTH = 0.08
"""How gradual that is."""
MOST = 0.95
"""Even a perfect board is not liked by everyone."""
INK = 128
"""Summed difference from the ground, of 765, past which a pixel is a sticker's."""


def like_rate(image: NDArray[np.uint8]) -> float:
    """Probability that an honest person likes the image, uint8 (H, W, 3); 0 for a bare board."""
    pixels = image.astype(np.int64)
    ink = pixels[np.abs(pixels - np.array(GROUND)).sum(axis=2) > INK]
    if not len(ink):
        return 0.0
    distances = ((ink[:, None] - np.array(list(PALETTE.values()))) ** 2).sum(axis=2)
    cool = [color in COOL for color in PALETTE]
    coolness = float(np.array(cool)[distances.argmin(axis=1)].mean())
    return MOST / (1 + np.exp((LIMIT - coolness) / WIDTH).item())
