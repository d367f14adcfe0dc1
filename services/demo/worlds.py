"""The two bundled worlds, side by side: what the makers of their models need of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.demo import corpus, prompts, stickers
from services.demo.tiny_sd3 import Shape
from services.demo.words import corpus as words_corpus
from services.demo.words import prompts as words_prompts
from services.demo.words import signs


@dataclass(frozen=True)
class World:
    """Images, captions and prompts of one world."""

    shape: Shape
    """What it asks of its networks."""
    build_corpus: Callable[[int, int, float], corpus.Corpus[Any]]
    """The corpus of that number, seed and share of wrong captions."""
    crowd: Callable[[int, int], NDArray[np.uint8]]
    """Images uint8 (N, H, W, 3) that no prompt describes, of that number and seed."""
    heldout: Callable[[], list[dict[str, Any]]]
    """The held-out prompts."""


WORLDS = {
    "stickers": World(
        Shape(
            height=stickers.SIZE,
            width=stickers.SIZE,
            latent_channels=12,
            patch_size=1,
            caption_tokens=10,
            words=prompts.WORDS,
        ),
        corpus.build_corpus,
        corpus.crowded_images,
        prompts.heldout_prompts,
    ),
    "words": World(
        Shape(
            height=signs.HEIGHT,
            width=signs.WIDTH,
            latent_channels=16,
            patch_size=2,
            caption_tokens=13,
            words=words_prompts.CAPTION_WORDS,
            symbols='"' + signs.DIGITS,
            num_heads=4,
        ),
        words_corpus.build_corpus,
        words_corpus.crowded_images,
        words_prompts.heldout_prompts,
    ),
}
