"""A vision language model as a judge, in the reward worker itself.

    yes_no   p(yes) / (p(yes) + p(no)), over all tokens that spell them, of the answer's first token
    score    sum_d d p(d) / sum_d p(d), over the digits d of the scale
    rubric   the weighted mean of several such answers

Nothing is generated and parsed: a mean over digits also tells images apart that would get the same
one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from services.reward.checkpoints import Placement, find_checkpoint, fingerprint
from services.reward.contract import Answer, RewardInput, Verdict
from services.reward.judge_questions import (
    MIN_MASS,
    AnswerCache,
    Criterion,
    Form,
    Questions,
    Scale,
    first_word,
    image_digest,
    read_questions,
    yes_no_verdict,
)
from services.reward.local_vlm import NEEDS, LocalVlm
from services.reward.option_checks import check_whole

Key = tuple[str, str, str]
TOKENS: Mapping[Form, Any] = {
    "yes_no": lambda text: word if (word := first_word(text)) in ("yes", "no") else "",
    "score": lambda text: digit if (digit := text.strip()) in tuple("0123456789") else "",
}
"""From a token's text to what it answers, "" where it answers nothing."""


class LocalVlmJudge:
    """Asks about several images at a time, and remembers the answers."""

    requires = ("prompt", "image")

    def __init__(
        self,
        weights: str,
        mode: str = "yes_no",
        question: str | None = None,
        scale: Mapping[str, Any] | None = None,
        rubric: Sequence[Mapping[str, Any]] | None = None,
        device: str = "auto",
        dtype: str = "float32",
        images_per_pass: int = 8,
        cache_size: int = 4096,
    ) -> None:
        """See docs/rewards.md; `weights` is a folder, or a hub name that is in the cache."""
        check_whole(0, cache_size=cache_size)
        check_whole(1, images_per_pass=images_per_pass)
        self._questions = _questions(mode, question, scale, rubric)
        self._instructions = _instructions(self._questions.scale)
        self._placement = Placement(device, dtype)
        self._weights = find_checkpoint(weights, "weights", NEEDS)
        self._images_per_pass = images_per_pass
        self._cache = AnswerCache(cache_size)
        self._model: LocalVlm | None = None
        self._ids: dict[Form, dict[str, list[int]]] = {}
        settings = {"files": fingerprint(self._weights), "dtype": dtype}
        self.version = self._questions.version(self._weights.name, settings)

    def prepare(self) -> None:
        """Load the model; ValueError where it has no tokens to answer with."""
        model = LocalVlm(self._weights, self._placement)
        forms: set[Form] = {criterion.mode for criterion in self._questions.criteria}
        for form in sorted(forms):
            self._ids[form] = model.tokens(TOKENS[form])
            missing = set(_answers(form, self._questions.scale)) - self._ids[form].keys()
            if missing:
                raise ValueError(
                    f"{self._weights}: no token of its own for {', '.join(sorted(missing))}, by "
                    f"which mode {form} is answered; use another mode or model"
                )
        self._model = model

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The judge's verdict on every image; one that it did not answer about has no value."""
        if self._model is None:
            self.prepare()
        digests = [image_digest(item.image) for item in batch]
        asked = {
            self._key(digest, item, criterion): (item, criterion)
            for digest, item in zip(digests, batch, strict=True)
            for criterion in self._questions.criteria
        }
        known = {key: answer for key in asked if (answer := self._cache.get(key)) is not None}
        known |= self._answer({key: asked[key] for key in asked if key not in known})
        return [
            self._questions.combine(
                [known[self._key(digest, item, c)] for c in self._questions.criteria]
            )
            for digest, item in zip(digests, batch, strict=True)
        ]

    def _key(self, digest: str, item: RewardInput, criterion: Criterion) -> Key:
        return digest, item.prompt.text, criterion.name

    def _answer(self, asked: dict[Key, tuple[RewardInput, Criterion]]) -> dict[Key, Verdict]:
        """Ask pass by pass; each answer goes into the cache at once."""
        assert self._model is not None, "prepare() was called"
        answers: dict[Key, Verdict] = {}
        keys = list(asked)
        for start in range(0, len(keys), self._images_per_pass):
            some = keys[start : start + self._images_per_pass]
            images = [asked[key][0].image for key in some]
            texts = [
                self._questions.text(criterion, item.prompt, self._instructions)
                for item, criterion in (asked[key] for key in some)
            ]
            for key, row_V in zip(some, self._model.next_token(images, texts), strict=True):
                answers[key] = self._verdict(row_V, asked[key][1].mode)
                self._cache.put(key, answers[key])
        return answers

    def _verdict(self, probabilities_V: Tensor, form: Form) -> Verdict:
        """The verdict of one answer's first token, (V,) probabilities."""
        scale = self._questions.scale
        mass = {
            answer: probabilities_V[self._ids[form][answer]].sum().item()
            for answer in _answers(form, scale)
        }
        if form == "yes_no":
            verdict = yes_no_verdict(mass["yes"], mass["no"], "")
        else:
            verdict = _expected(mass, scale)
        if verdict is not None:
            return verdict
        wanted = ", ".join(mass)
        return Verdict(
            None, reason=f"{wanted} have {sum(mass.values()):.2g} of the first token's probability"
        )


def _expected(mass: Mapping[str, float], scale: Scale) -> Verdict | None:
    """The mean digit; None where no digit was thought of."""
    total = sum(mass.values())
    if not total >= MIN_MASS:
        return None
    score = sum(int(digit) * part for digit, part in mass.items()) / total
    return Verdict(scale.value(score), {"score": score, "p_digits": total})


def _answers(form: Form, scale: Scale) -> tuple[str, ...]:
    if form == "yes_no":
        return "yes", "no"
    return tuple(str(digit) for digit in range(int(scale.lowest), int(scale.highest) + 1))


def _instructions(scale: Scale) -> dict[Form, str]:
    return {
        "yes_no": "Answer with yes or no only.",
        "score": f"Answer with {scale.text} only.",
    }


def _questions(
    mode: str,
    question: str | None,
    scale: Mapping[str, Any] | None,
    rubric: Sequence[Mapping[str, Any]] | None,
) -> Questions:
    digits = {"lowest": 0, "highest": 9}
    if mode in ("score", "rubric") and (scale is None or isinstance(scale, Mapping)):
        scale = digits | dict(scale or {})
    questions = read_questions(mode, question, scale, rubric)
    found = questions.scale
    if mode != "yes_no" and not (found.whole and found.lowest >= 0 and found.highest <= 9):
        raise ValueError(
            f"option scale: {found.text}; a local judge answers with one digit: "
            "use whole numbers from 0 to 9"
        )
    return questions
