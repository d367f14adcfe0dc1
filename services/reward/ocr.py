"""How well the image shows the text that its prompt puts in double quotes.

    reward = 1 - min(Levenshtein(target, read), len(target)) / len(target)

with case and spaces removed from both; 1 when the target is contained in what was read.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.reward.contract import Answer, RewardInput, Verdict
from tdm_core.types import Prompt

QUOTED = re.compile('"([^"]*)"|\u201c([^\u201d]*)\u201d')


def target_of(prompt: Prompt) -> str:
    """The first quoted text of the prompt, normalised; ValueError where there is none."""
    match = QUOTED.search(prompt.text)
    if match is None:
        raise ValueError('it quotes no text to read; write it in double quotes: a sign "OPEN"')
    target = normalised(match[1] if match[1] is not None else match[2])
    if not target:
        raise ValueError('the text in its double quotes is blank; write one to read: "OPEN"')
    return target


def normalised(text: str) -> str:
    """Lower case, without white space."""
    return "".join(text.split()).lower()


def text_reward(target: str, read: str) -> float:
    """The reward in [0, 1]; both texts normalised, the target not empty."""
    if target in read:
        return 1.0
    return 1.0 - min(levenshtein(target, read), len(target)) / len(target)


def levenshtein(a: str, b: str) -> int:
    """Least number of insertions, deletions and replacements that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, from_a in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, from_b in enumerate(b, start=1):
            replaced = diagonal + (from_a != from_b)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, replaced)
    return row[-1]


class OcrReward:
    """RapidOCR reads the image; its weights are inside its wheel."""

    version = "1"
    requires = ("prompt", "image")

    def __init__(self, limit_side_len: int = 128) -> None:
        """Images whose shorter side is below `limit_side_len` pixels are enlarged to it first."""
        if type(limit_side_len) is not int or not 32 <= limit_side_len <= 2000:
            raise ValueError(
                f"option limit_side_len={limit_side_len!r}: allowed is a whole number of pixels "
                "from 32 to 2000"
            )
        self._limit_side_len = limit_side_len
        self._engine: Any = None
        self.version = f"1:rapidocr:{limit_side_len}"

    def check_prompt(self, prompt: Prompt) -> None:
        """Raise ValueError where the prompt quotes no text."""
        target_of(prompt)

    def prepare(self) -> None:
        """Start the engine, once."""
        self._engine = self._engine or _new_engine(self._limit_side_len)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The reward of every image, with what was read as the reason."""
        return [self._judge(item) for item in batch]

    def _judge(self, item: RewardInput) -> Verdict:
        target, read = target_of(item.prompt), self._read(item.image)
        return Verdict(text_reward(target, normalised(read)), reason=f"read {read!r}")

    def _read(self, image: NDArray[np.uint8]) -> str:
        self.prepare()
        # All three flags, every time: the engine keeps the last ones for calls without.
        result = self._engine(image[:, :, ::-1], use_det=True, use_cls=False, use_rec=True)
        return " ".join(result.txts or ())


def _new_engine(limit_side_len: int) -> Any:
    from rapidocr import RapidOCR  # half a second, and only workers that read need it

    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_side_len": limit_side_len,
            "Det.limit_type": "min",
        }
    )
