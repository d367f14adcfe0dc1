"""The world's prompts with GenEval's metadata: enumerated, split, written as JSON lines.

Held out are prompts whose text no training prompt and no corpus caption has. For counting, position
and color_attr the *content* is held out, under every wording; single_object, colors and
two_object have too few contents, so there a pair of content and wording is. Every word of a
held-out prompt occurs in training prompts.

Run `python -m services.demo.prompts` to write both files again.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np

from services.demo.stickers import COLORS, SHAPES

Metadata = Mapping[str, Any]

FOLDER = Path(__file__).parent / "prompts"
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
COUNTS = {2: "two", 3: "three", 4: "four"}
PLURALS = tuple(f"{shape}s" for shape in SHAPES)
NOUNS = ("photo of", "picture of", "drawing of", "image of", "sticker of")
PLACES = ("board with", "page with", "sheet with")
WORDINGS = ("{}", *(f"a {lead} {{}}" for lead in (*NOUNS, *PLACES)))
HELD_OUT = {
    "single_object": 12,
    "two_object": 16,
    "counting": 24,
    "colors": 20,
    "position": 32,
    "color_attr": 24,
}
SPLIT_BY_CONTENT = ("counting", "position", "color_attr")
LONG = ("position", "color_attr")  # plain wording only, so that no caption has over 10 tokens
WORDS = tuple(
    dict.fromkeys(
        " ".join(
            ["a and", *COLORS, *SHAPES, *PLURALS, *COUNTS.values(), *RELATIONS, *NOUNS, *PLACES]
        ).split()
    )
)


def train_prompts() -> list[dict[str, Any]]:
    """All prompts that training may use, as metadata, tag by tag; always the same list."""
    return _split()[0]


def heldout_prompts() -> list[dict[str, Any]]:
    """The 128 held-out prompts, as metadata, tag by tag; always the same list."""
    return _split()[1]


def contents(tag: str) -> list[dict[str, Any]]:
    """Every content of a tag as metadata, in the plain wording."""
    match tag:
        case "single_object":
            found = [_metadata(tag, f"a {shape}", [_clause(shape)]) for shape in SHAPES]
        case "colors":
            found = [
                _metadata(tag, f"a {color} {shape}", [_clause(shape, color=color)])
                for color, shape in product(COLORS, SHAPES)
            ]
        case "two_object":
            found = [
                _metadata(tag, f"a {first} and a {second}", [_clause(first), _clause(second)])
                for first, second in permutations(SHAPES, 2)
            ]
        case "counting":
            found = [
                _counting(shape, color, count)
                for shape, color, count in product(SHAPES, (None, *COLORS), COUNTS)
            ]
        case "color_attr":
            found = [
                _metadata(
                    tag,
                    f"a {one} {first} and a {two} {second}",
                    [_clause(first, color=one), _clause(second, color=two)],
                )
                for (first, second), one, two in product(permutations(SHAPES, 2), COLORS, COLORS)
            ]
        case "position":
            pairs = product(permutations(SHAPES, 2), RELATIONS)
            found = [
                _position(first, second, relation, colors)
                for (first, second), relation in pairs
                for colors in [(None, None), *product(COLORS, COLORS)]
            ]
        case _:
            raise ValueError(f"tag {tag!r} is not one of {', '.join(TAGS)}; use one of these")
    return found


def write_splits(folder: Path, train: Sequence[Metadata], heldout: Sequence[Metadata]) -> None:
    """Write train.jsonl and heldout.jsonl into the folder, one metadata object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in (("train", train), ("heldout", heldout)):
        lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
        (folder / f"{name}.jsonl").write_text(lines)


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """Metadata objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _split() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    train: list[dict[str, Any]] = []
    heldout: list[dict[str, Any]] = []
    for number, tag in enumerate(TAGS):
        rng = np.random.default_rng([2603, 7700, number])
        by_content = tag in SPLIT_BY_CONTENT
        wordings = WORDINGS if tag not in LONG else WORDINGS[:1]
        groups = [[_worded(content, wording) for wording in wordings] for content in contents(tag)]
        if not by_content:
            groups = [[prompt] for group in groups for prompt in group]
        each = min(len(groups[0]), 2)
        chosen = rng.choice(len(groups), size=HELD_OUT[tag] // each, replace=False).tolist()
        for place, group in enumerate(groups):
            if place in chosen:
                heldout += group[:each]
            else:
                train += group
    return train, heldout


def _worded(metadata: Metadata, wording: str) -> dict[str, Any]:
    return {**metadata, "prompt": wording.format(metadata["prompt"])}


def _metadata(tag: str, prompt: str, include: list[dict[str, Any]]) -> dict[str, Any]:
    """Every prompt means its numbers exactly: one object too many of a class it names fails it."""
    exclude = [_clause(clause["class"], clause["count"] + 1) for clause in include]
    return {"tag": tag, "include": include, "exclude": exclude, "prompt": prompt}


def _clause(shape: str, count: int = 1, color: str | None = None, **rest: Any) -> dict[str, Any]:
    return {"class": shape, "count": count, **({"color": color} if color else {}), **rest}


def _named(shape: str, color: str | None) -> str:
    return f"{color} {shape}" if color else shape


def _counting(shape: str, color: str | None, count: int) -> dict[str, Any]:
    return _metadata(
        "counting",
        f"{COUNTS[count]} {_named(shape, color)}s",
        [_clause(shape, count, color)],
    )


def _position(
    first: str, second: str, relation: str, colors: tuple[str | None, str | None]
) -> dict[str, Any]:
    return _metadata(
        "position",
        f"a {_named(first, colors[0])} {relation} a {_named(second, colors[1])}",
        [
            _clause(second, color=colors[1]),
            _clause(first, color=colors[0], position=[relation, 0]),
        ],
    )


if __name__ == "__main__":
    write_splits(FOLDER, train_prompts(), heldout_prompts())
