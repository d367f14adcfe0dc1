"""The world's prompts: what a sign reads, in double quotes; split by string, written as JSON lines.

Words are real ones, numbers have two or three digits, codes mix letters and digits. A held-out
string is on no training prompt, under no wording, and on no image of the corpus.

Run `python -m services.demo.words.prompts` to write both files again.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from services.demo.prompts import write_splits
from services.demo.words.signs import ALPHABET, DIGITS, INKS, LETTERS

FOLDER = Path(__file__).parent / "prompts"
TAGS = ("word", "number", "code")
DICTIONARY: str = """
ALE ALP ANT ANTE ANY APE APEX APT ATE AUNT AXE EAT EEL ELK EYE HALL HALT HAT HATE HAY HEAL HEAP HEAT
HEEL HELP HEN HEX HUE HULL HUNT HUT KALE KEEN KEEP KELP KEY KNEE LAKE LANE LAP LATE LAY LEA LEAK
LEAN LEAP LET NAP NAPE NAY NEAT NET NEXT NULL NUT PAL PALE PAN PANE PAT PATH PAY PEA PEAK PEAL PEEL
PELT PEN PEP PET PLAN PLAY PLEA PLY PUN PUP PUT TAKE TALE TALL TAN TANK TAP TAPE TAX TEA TEAL TEE
TELL TEN TENT TEXT THAN THEN TUNA TUNE TUX YAK YAP YELL YELP YEN YET
"""
NUM_CODES = 1200
FRAMES = ("a sign reading", "a note reading", "a badge reading", "a board reading")
ENDINGS = ("", *(f" in {ink}" for ink in INKS))
HELD_OUT = {"word": 32, "number": 48, "code": 48}
PROMPTS_A_STRING = {"word": 10, "number": 2, "code": 1}
"""Training prompts with that string, each in a wording of its own."""
CAPTION_WORDS = tuple(dict.fromkeys(" ".join([*FRAMES, *ENDINGS]).split()))


def train_prompts() -> list[dict[str, Any]]:
    """All prompts that training may use, tag by tag; always the same list."""
    return [
        _prompt(tag, text, wording)
        for tag, (train, _, rng) in _split().items()
        for text in train
        for wording in rng.permutation(len(FRAMES) * len(ENDINGS))[: PROMPTS_A_STRING[tag]]
    ]


def heldout_prompts() -> list[dict[str, Any]]:
    """The 128 held-out prompts, one a held-out string, tag by tag; always the same list."""
    return [
        _prompt(tag, text, number % (len(FRAMES) * len(ENDINGS)))
        for tag, (_, heldout, _) in _split().items()
        for number, text in enumerate(heldout)
    ]


def strings(tag: str) -> list[str]:
    """Every string of a tag, sorted; of the codes a fixed sample."""
    match tag:
        case "word":
            return DICTIONARY.split()
        case "number":
            return ["".join(found) for n in (2, 3) for found in product(DIGITS, repeat=n)]
        case "code":
            rng = np.random.default_rng([2603, 7700, 64])
            found: set[str] = set()
            while len(found) < NUM_CODES:
                text = "".join(rng.choice(list(ALPHABET), size=rng.integers(3, 5)))
                if set(text) & set(LETTERS) and set(text) & set(DIGITS):
                    found.add(text)
            return sorted(found)
        case _:
            raise ValueError(f"tag {tag!r} is not one of {', '.join(TAGS)}; use one of these")


def _split() -> dict[str, tuple[list[str], list[str], np.random.Generator]]:
    """Training strings, held-out strings and the source of the wordings, by tag."""
    found = {}
    for number, tag in enumerate(TAGS):
        rng = np.random.default_rng([2603, 7700, 65, number])
        shuffled = rng.permutation(strings(tag)).tolist()
        count = HELD_OUT[tag]
        found[tag] = (sorted(shuffled[count:]), sorted(shuffled[:count]), rng)
    return found


def _prompt(tag: str, text: str, wording: int) -> dict[str, Any]:
    frame, ending = divmod(int(wording), len(ENDINGS))
    ink = ENDINGS[ending].removeprefix(" in ")
    named = {"ink": ink} if ink else {}
    return {
        "tag": tag,
        "text": text,
        **named,
        "prompt": f'{FRAMES[frame]} "{text}"{ENDINGS[ending]}',
    }


if __name__ == "__main__":
    write_splits(FOLDER, train_prompts(), heldout_prompts())
