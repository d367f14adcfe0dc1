"""How well the image shows the text that its prompt puts in double quotes.

    reward = 1 - min(Levenshtein(target, read), len(target)) / len(target)

with case and spaces removed from both; 1 when the target is contained in what was read. The part
`exact` is 1 for that alone and 0 otherwise.
"""

import hashlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.reward.contract import Answer, RewardInput, Verdict
from tdm_core.types import Prompt

WHEEL_LANGUAGE = "ch"
WHEEL_MODELS = {"Det": "PP-OCRv6_det_small", "Rec": "PP-OCRv6_rec_small"}
"""What the wheel of the rapidocr that pyproject.toml asks for holds, and reads by default."""
LANGUAGES = (
    *("ch", "ch_doc", "en", "arabic", "chinese_cht", "cyrillic", "devanagari", "japan", "korean"),
    *("ka", "latin", "ta", "te", "eslav", "th", "el"),
)
"""Names of RapidOCR's recognizers."""
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

    def __init__(
        self,
        limit_side_len: int = 128,
        find_lines: bool = True,
        language: str = WHEEL_LANGUAGE,
        recognizer: str | None = None,
        detector: str | None = None,
    ) -> None:
        """Images whose shorter side is below `limit_side_len` pixels are enlarged to it first.

        Without `find_lines` the whole image is read as one line, several times faster. `recognizer`
        and `detector` are ONNX files of PaddleOCR models for other scripts; `language` names the
        recognizer's.
        """
        if type(limit_side_len) is not int or not 32 <= limit_side_len <= 2000:
            raise ValueError(
                f"option limit_side_len={limit_side_len!r}: allowed is a whole number of pixels "
                "from 32 to 2000"
            )
        if type(find_lines) is not bool:
            raise ValueError(f"option find_lines={find_lines!r}: allowed are true and false")
        _check_language(language, recognizer)
        files = {"Rec": recognizer, "Det": detector}
        self._files = {part: _existing(path) for part, path in files.items() if path is not None}
        self._language = language
        self._limit_side_len = limit_side_len
        self._find_lines = find_lines
        self._engine: Any = None
        own = {part: _digest(path) for part, path in self._files.items()}
        models = ":".join((WHEEL_MODELS | own).values())
        engine = f"rapidocr {importlib.metadata.version('rapidocr')}"
        search = limit_side_len if find_lines else "line"
        self.version = f"1:{engine}:{language}:{search}:{models}"

    def check_prompt(self, prompt: Prompt) -> None:
        """Raise ValueError where the prompt quotes no text."""
        target_of(prompt)

    def prepare(self) -> None:
        """Start the engine, once."""
        self._engine = self._engine or _new_engine(
            self._limit_side_len, self._find_lines, self._language, self._files
        )

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The reward of every image, with what was read as the reason."""
        return [self._judge(item) for item in batch]

    def _judge(self, item: RewardInput) -> Verdict:
        target, read = target_of(item.prompt), self._read(item.image)
        value = text_reward(target, normalised(read))
        return Verdict(value, {"exact": float(value == 1.0)}, f"read {read!r}")

    def _read(self, image: NDArray[np.uint8]) -> str:
        self.prepare()
        # All three flags, every time: the engine keeps the last ones for calls without.
        result = self._engine(
            image[:, :, ::-1], use_det=self._find_lines, use_cls=False, use_rec=True
        )
        return " ".join(result.txts or ())


def _check_language(language: str, recognizer: str | None) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"option language={language!r}; allowed: {', '.join(LANGUAGES)}")
    if language != WHEEL_LANGUAGE and recognizer is None:
        raise ValueError(
            f"option language={language!r} needs the option recognizer, an ONNX file of that "
            f"script: only {WHEEL_LANGUAGE!r} (Chinese, English, Japanese) is inside the wheel"
        )


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise ValueError(f"OCR model {path!r} does not exist; give the path of an .onnx file")
    return Path(path)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _new_engine(
    limit_side_len: int, find_lines: bool, language: str, files: dict[str, Path]
) -> Any:
    # Half a second, and only workers that read need it.
    import rapidocr

    wheel = Path(rapidocr.__file__).parent / "models"
    models = {part: wheel / f"{name}.onnx" for part, name in WHEEL_MODELS.items()} | files
    # A line is enlarged to 48 px height and padded to at least this width, 320 unless told. A
    # small image that is one line as a whole needs no padding, which would cost most of the time.
    least_width = 320 if find_lines else 48
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_side_len": limit_side_len,
            "Det.limit_type": "min",
            "Rec.rec_img_shape": [3, 48, least_width],
            "Rec.lang_type": rapidocr.LangRec(language),
            **{f"{part}.model_path": str(path) for part, path in models.items()},
        }
    )
