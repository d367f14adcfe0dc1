"""Simulated people's taste: how likely a person likes a sticker board, from its pixels alone.

    like_rate = MOST * sigmoid((LIMIT - height) / WIDTH)
`height` is where the middle of all stickers lies, 0 at the top edge and 1 at the bottom: these
people like stickers that hang high. No prompt asks for that and no other reward knows it.
"""

import numpy as np
from numpy.typing import NDArray

from services.demo.stickers import GROUND

LIMIT = 0.38
"""Height at which half of the people who may like it do."""
WIDTH = 0.06
"""How gradual that is, in board heights."""
MOST = 0.95
"""Even a perfect board is not liked by everyone."""
INK = 64
"""Summed difference from the ground, of 765, past which a pixel is a sticker's."""


def like_rate(image: NDArray[np.uint8]) -> float:
    """Probability that an honest person likes the image, uint8 (H, W, 3); 0 for a bare board."""
    difference = np.abs(image.astype(np.int64) - np.array(GROUND)).sum(axis=2)
    rows = (difference > INK).sum(axis=1)
    if not rows.any():
        return 0.0
    heights = (np.arange(len(rows)) + 0.5) / len(rows)
    height = float(rows @ heights / rows.sum())
    return MOST / (1 + np.exp((height - LIMIT) / WIDTH).item())
