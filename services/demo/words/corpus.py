"""The captioned corpus of signs; see `services.demo.corpus` for its wrong captions.

A sign has the text of its prompt and the ink, if the prompt names one, in a font drawn by chance.
"""

import numpy as np
from numpy.typing import NDArray

from services.demo.corpus import Corpus, assemble, draw_prompts
from services.demo.prompts import Metadata
from services.demo.words.prompts import train_prompts
from services.demo.words.signs import ALPHABET, FONTS, INKS, MOST_CHARACTERS, Sign, render

TAG_WEIGHTS = {"word": 0.3, "number": 0.3, "code": 0.4}


def build_corpus(num_examples: int, seed: int, wrong_caption: float = 0.25) -> Corpus[Sign]:
    """Signs of that number and seed; the share `wrong_caption` has another sign's caption."""
    rng = np.random.default_rng([seed, num_examples])
    prompts = draw_prompts(train_prompts(), TAG_WEIGHTS, num_examples, rng)
    return assemble(prompts, sign_of, render, wrong_caption, rng)


def sign_of(metadata: Metadata, rng: np.random.Generator) -> Sign:
    """A sign that fulfils the metadata; the font, and the ink where it names none, by chance."""
    ink = metadata.get("ink") or str(rng.choice(list(INKS)))
    return Sign(metadata["text"], ink, str(rng.choice(list(FONTS))))


def crowded_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Signs of any four characters, uint8 (count, 32, 64, 3)."""
    rng = np.random.default_rng([seed, count, 1])
    texts = rng.choice(list(ALPHABET), size=(count, MOST_CHARACTERS))
    return np.stack([render(sign_of({"text": "".join(text)}, rng), rng) for text in texts])
