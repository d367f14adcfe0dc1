"""The procedural captioned corpus: images that fulfil training prompts, some captioned wrongly.

A prompt is drawn (its tag first, then a prompt of that tag) and an image that fulfils it. A quarter
of the captions is then taken from other images, as captions from the web are: the teacher this
trains is imperfect, and a reward has something to teach it. `assemble` does that for any world.

Boards: one that fulfils the prompt is laid out, and with probability 1/4 a sticker of a shape that
the prompt does not name is added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.demo.prompts import Metadata, train_prompts
from services.demo.stickers import COLORS, GRID, SHAPES, Board, Sticker, render

TAG_WEIGHTS = {
    "single_object": 0.08,
    "two_object": 0.10,
    "counting": 0.22,
    "colors": 0.10,
    "position": 0.30,
    "color_attr": 0.20,
}
DISTRACTOR = 0.25
CROWDED = 0.6
"""Share of cells with a sticker on a crowded board."""
CELLS = tuple((row, column) for row in range(GRID) for column in range(GRID))
Cell = tuple[int, int]
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Corpus(Generic[Drawn]):
    """images uint8 (N, H, W, 3); captions and what is drawn, N each; bool (N,): was swapped."""

    images: NDArray[np.uint8]
    captions: tuple[str, ...]
    drawn: tuple[Drawn, ...]
    wrong: NDArray[np.bool_]


def build_corpus(num_examples: int, seed: int, wrong_caption: float = 0.25) -> Corpus[Board]:
    """Boards of that number and seed; the share `wrong_caption` has another board's caption."""
    rng = np.random.default_rng([seed, num_examples])
    prompts = draw_prompts(train_prompts(), TAG_WEIGHTS, num_examples, rng)
    return assemble(prompts, lay_out, render, wrong_caption, rng)


def assemble(
    prompts: Sequence[Metadata],
    lay_out: Callable[[Metadata, np.random.Generator], Drawn],
    render: Callable[[Drawn, np.random.Generator], NDArray[np.uint8]],
    wrong_caption: float,
    rng: np.random.Generator,
) -> Corpus[Drawn]:
    """One image a prompt; the share `wrong_caption` of them has the caption of another."""
    if not 0 <= wrong_caption <= 1:
        raise ValueError(
            f"wrong_caption={wrong_caption} is no probability; give a number from 0 to 1"
        )
    drawn = tuple(lay_out(prompt, rng) for prompt in prompts)
    images = np.stack([render(one, rng) for one in drawn])
    wrong = rng.random(len(prompts)) < wrong_caption
    source = np.arange(len(prompts))
    source[wrong] = np.roll(source[wrong], 1)
    captions = tuple(str(prompts[place]["prompt"]) for place in source.tolist())
    return Corpus(images, captions, drawn, wrong)


def draw_prompts(
    prompts: Sequence[Metadata],
    tag_weights: Mapping[str, float],
    count: int,
    rng: np.random.Generator,
) -> list[Metadata]:
    """`count` prompts: the tag by its weight, then one of the tag's prompts evenly."""
    tags = list(tag_weights)
    by_tag = {tag: [prompt for prompt in prompts if prompt["tag"] == tag] for tag in tags}
    drawn = rng.choice(len(tags), size=count, p=list(tag_weights.values()))
    return [by_tag[tags[tag]][rng.integers(len(by_tag[tags[tag]]))] for tag in drawn]


def lay_out(metadata: Metadata, rng: np.random.Generator) -> Board:
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


def crowded_images(count: int, seed: int) -> NDArray[np.uint8]:
    """Crowded boards that no prompt describes, uint8 (count, 32, 32, 3)."""
    rng = np.random.default_rng([seed, count, 1])
    boards = [draw_board(CROWDED, rng) for _ in range(count)]
    return np.stack([render(board, rng) for board in boards])


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
