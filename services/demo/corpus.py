"""The procedural captioned corpus: boards that fulfil training prompts, some captioned wrongly.

A prompt is drawn (its tag first, then a prompt of that tag), a board that fulfils it is laid out,
and with probability 1/4 a sticker of a shape the prompt does not name is added. A quarter of the
captions is then taken from other boards, as captions from the web are: the teacher this trains is
imperfect, and a reward has something to teach it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.demo.prompts import TAGS, train_prompts
from services.demo.stickers import COLORS, GRID, SHAPES, SIZE, Board, Sticker, render

TAG_WEIGHTS = {
    "single_object": 0.08,
    "two_object": 0.10,
    "counting": 0.22,
    "colors": 0.10,
    "position": 0.30,
    "color_attr": 0.20,
}
DISTRACTOR = 0.25
CELLS = tuple((row, column) for row in range(GRID) for column in range(GRID))
Cell = tuple[int, int]


@dataclass(frozen=True)
class Corpus:
    """images uint8 (N, 32, 32, 3); captions and boards, N each; `wrong` bool (N,): was swapped."""

    images: NDArray[np.uint8]
    captions: tuple[str, ...]
    boards: tuple[Board, ...]
    wrong: NDArray[np.bool_]


def build_corpus(num_examples: int, seed: int, wrong_caption: float = 0.25) -> Corpus:
    """The corpus of that size and seed; the share `wrong_caption` has another board's caption."""
    if not 0 <= wrong_caption <= 1:
        raise ValueError(
            f"wrong_caption={wrong_caption} is no probability; give a number from 0 to 1"
        )
    rng = np.random.default_rng([seed, num_examples])
    prompts = draw_prompts(train_prompts(), num_examples, rng)
    boards = tuple(lay_out(prompt, rng) for prompt in prompts)
    images = np.empty((num_examples, SIZE, SIZE, 3), dtype=np.uint8)
    for place, board in enumerate(boards):
        images[place] = render(board, rng)
    wrong = rng.random(num_examples) < wrong_caption
    source = np.arange(num_examples)
    source[wrong] = np.roll(source[wrong], 1)
    captions = tuple(str(prompts[place]["prompt"]) for place in source)
    return Corpus(images, captions, boards, wrong)


def draw_prompts(
    prompts: Sequence[Mapping[str, Any]], count: int, rng: np.random.Generator
) -> list[Mapping[str, Any]]:
    """`count` prompts: the tag by its weight, then one of the tag's prompts evenly."""
    by_tag = {tag: [prompt for prompt in prompts if prompt["tag"] == tag] for tag in TAGS}
    weights = [TAG_WEIGHTS[tag] for tag in TAGS]
    drawn = rng.choice(len(TAGS), size=count, p=weights)
    return [by_tag[TAGS[tag]][rng.integers(len(by_tag[TAGS[tag]]))] for tag in drawn]


def lay_out(metadata: Mapping[str, Any], rng: np.random.Generator) -> Board:
    """A board on which the metadata is strictly true; the rest (cells, free colours) by chance."""
    include = metadata["include"]
    cells = [CELLS[place] for place in rng.permutation(len(CELLS))]
    relation = next((clause["position"][0] for clause in include if "position" in clause), None)
    if relation:
        cells = _related_cells(relation, rng)
    stickers: list[Sticker] = []
    for clause in include:
        for _ in range(clause["count"]):
            color = clause.get("color") or str(rng.choice(COLORS))
            stickers.append(Sticker(clause["class"], color, *cells[len(stickers)]))
    free = [shape for shape in SHAPES if all(clause["class"] != shape for clause in include)]
    if free and rng.random() < DISTRACTOR:
        taken = {(sticker.row, sticker.column) for sticker in stickers}
        empty = [cell for cell in CELLS if cell not in taken]
        cell = empty[rng.integers(len(empty))]
        stickers.append(Sticker(str(rng.choice(free)), str(rng.choice(COLORS)), *cell))
    return tuple(stickers)


def draw_board(density: float, rng: np.random.Generator) -> Board:
    """A board no prompt describes: every cell holds some sticker with probability `density`."""
    return tuple(
        Sticker(str(rng.choice(SHAPES)), str(rng.choice(COLORS)), row, column)
        for row, column in CELLS
        if rng.random() < density
    )


def _related_cells(relation: str, rng: np.random.Generator) -> list[Cell]:
    """Cells of the target and of the one that stands in `relation` to it, drawn evenly.

    The lead along the relation's axis is at least the shift across it: GenEval's rule with room.
    """
    axis, sign = {"left of": (1, -1), "right of": (1, 1), "above": (0, -1), "below": (0, 1)}[
        relation
    ]
    pairs = [
        [target, cell]
        for target in CELLS
        for cell in CELLS
        if sign * (cell[axis] - target[axis]) >= max(1, abs(cell[1 - axis] - target[1 - axis]))
    ]
    return pairs[rng.integers(len(pairs))]
