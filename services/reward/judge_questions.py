"""What a judge is asked about an image, and what its answers are worth together.

    reward = sum_c weight_c value_c / sum_c |weight_c|       over the criteria c of a rubric

A judge with one question is its own answer. A criterion without an answer leaves the image without
a value: a mean over the others would be the answer to another rubric.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from services.config import Section
from services.config_keys import check_keys, readable
from services.reward.contract import Verdict
from tdm_core.types import Prompt

Form = Literal["yes_no", "score"]
MODES = (*get_args(Form), "rubric")
QUESTIONS: Mapping[str, str] = {
    "yes_no": 'Does this image show exactly what the prompt "{prompt}" describes?',
    "score": 'How well does this image show what the prompt "{prompt}" describes?',
}
# Below this the model was about to say something else, and the ratio of two crumbs means nothing.
MIN_MASS = 0.05

SectionKind = TypeVar("SectionKind", bound=Section)


class Scale(Section):
    """The numbers that a judge may give."""

    lowest: float = Field(default=0.0, allow_inf_nan=False)
    """The worst score."""
    highest: float = Field(default=10.0, allow_inf_nan=False)
    """The best score."""
    whole: bool = True
    """Whether only whole numbers are allowed."""
    normalise: bool = True
    """Whether the reward is the score's place from 0 to 1, or the score itself."""

    @model_validator(mode="after")
    def _has_room(self) -> "Scale":
        if not self.lowest < self.highest:
            raise ValueError(f"lowest={self.lowest:g} is not below highest={self.highest:g}")
        if self.whole and not (self.lowest.is_integer() and self.highest.is_integer()):
            raise ValueError(
                f"whole=true with scores from {self.lowest:g} to {self.highest:g}; "
                "give whole numbers, or whole=false"
            )
        return self

    @property
    def text(self) -> str:
        """The range, for people and for judges."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.lowest:g} to {self.highest:g}"

    def allows(self, score: float) -> bool:
        """Whether a judge may give this score; infinities and NaN are outside any range."""
        inside = self.lowest <= score <= self.highest
        return inside and not (self.whole and score != int(score))

    def value(self, score: float) -> float:
        """What a score is worth."""
        return (score - self.lowest) / (self.highest - self.lowest) if self.normalise else score


class Criterion(Section):
    """One question of a rubric."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Its part of the record."""
    question: str = Field(min_length=1)
    """What is asked; `{prompt}` becomes the prompt's text."""
    mode: Form = "yes_no"
    """How it is answered."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """Its share in the mean; negative punishes."""


@dataclass(frozen=True)
class Questions:
    """Everything that is asked about one image."""

    criteria: tuple[Criterion, ...]
    scale: Scale
    is_rubric: bool

    def text(self, criterion: Criterion, prompt: Prompt, instructions: Mapping[Form, str]) -> str:
        """The question with the prompt in it, and how to answer."""
        question = criterion.question.replace("{prompt}", prompt.text)
        return f"{question} {instructions[criterion.mode]}"

    def combine(self, answers: Sequence[Verdict]) -> Verdict:
        """The verdict of one image, from one answer a criterion."""
        if not self.is_rubric:
            return answers[0]
        named = list(zip(self.criteria, answers, strict=True))
        parts = {c.name: answer.value for c, answer in named if answer.value is not None}
        missing = [f"{c.name}: {answer.reason}" for c, answer in named if answer.value is None]
        if missing:
            return Verdict(None, parts, "; ".join(missing))
        total = sum(abs(c.weight) for c in self.criteria)
        value = sum(c.weight * parts[c.name] for c in self.criteria) / total
        return Verdict(value, parts, "; ".join(f"{c.name} {parts[c.name]:.3g}" for c, _ in named))

    def version(self, judge: str, settings: Mapping[str, Any]) -> str:
        """A judge's version: changes with whatever could change an answer."""
        asked = [c.model_dump() for c in self.criteria]
        document = [asked, self.scale.model_dump(), self.is_rubric, settings]
        digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode())
        return f"2:{judge}:{digest.hexdigest()[:8]}"


class AnswerCache:
    """The newest answers, by whatever decides them; one without a value is not kept."""

    def __init__(self, size: int) -> None:
        """`size` 0 keeps none."""
        self._size = size
        self._answers: OrderedDict[tuple[str, ...], Verdict] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Verdict | None:
        """The answer, which becomes the newest."""
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: tuple[str, ...], answer: Verdict) -> None:
        """Keep an answer, and let the oldest go."""
        if answer.value is None:
            return
        self._answers[key] = answer
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)


def read_questions(
    mode: str,
    question: str | None,
    scale: Mapping[str, Any] | None,
    rubric: Sequence[Mapping[str, Any]] | None,
) -> Questions:
    """A judge's options, checked; ValueError names the option that is wrong."""
    if mode not in MODES:
        raise ValueError(f"option mode={mode!r}: allowed are {', '.join(MODES)}")
    if scale is not None and mode == "yes_no":
        raise ValueError("option scale has no meaning with mode yes_no; use mode score or rubric")
    checked = _section(Scale, scale or {}, "option scale")
    if mode != "rubric":
        if rubric is not None:
            raise ValueError(f"option rubric has no meaning with mode {mode}; use mode rubric")
        only = {"name": "answer", "question": question or QUESTIONS[mode], "mode": mode}
        return Questions((_section(Criterion, only, "option question"),), checked, False)
    if question is not None:
        raise ValueError("option question has no meaning with mode rubric, which has its own")
    return Questions(_criteria(rubric), _normalising(checked), True)


def yes_no_verdict(yes: float, no: float, reason: str) -> Verdict | None:
    """The reward of the probabilities of yes and of no; None where neither was thought of."""
    if not yes + no >= MIN_MASS:
        return None
    return Verdict(yes / (yes + no), {"p_yes": yes, "p_no": no}, reason)


def first_word(text: str) -> str:
    """The first word in lower case; blanks, quotes and other marks around it are no part of it."""
    match = re.search(r"[a-z]+", text.lower())
    return match[0] if match else ""


def image_digest(image: NDArray[np.uint8]) -> str:
    """SHA-256 hex of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _criteria(rubric: Any) -> tuple[Criterion, ...]:
    if not isinstance(rubric, list | tuple) or not rubric:
        raise ValueError(
            f"option rubric={rubric!r}: mode rubric needs a list of criteria, such as "
            '[{name: hands, question: "Are all hands drawn well?", weight: 2}]'
        )
    criteria = tuple(
        _section(Criterion, item, f"option rubric[{place}]") for place, item in enumerate(rubric)
    )
    names = [criterion.name for criterion in criteria]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"option rubric: name {', '.join(twice)} is used twice; names are unique")
    idle = [criterion.name for criterion in criteria if criterion.weight == 0]
    if idle:
        raise ValueError(f"option rubric: weight of {', '.join(idle)} is 0; remove the criterion")
    return criteria


def _normalising(scale: Scale) -> Scale:
    if not scale.normalise:
        raise ValueError(
            "option scale: normalise=false with mode rubric would weigh criteria by their range; "
            "leave it out"
        )
    return scale


def _section(kind: type[SectionKind], tree: Any, source: str) -> SectionKind:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{source} is {tree!r}; write it as key: value pairs")
    check_keys(kind, dict(tree), source)
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise ValueError(readable(error, source)) from None
