"""UnifiedReward: a Qwen2.5-VL is asked for a score and writes it after "Final Score:".

The answer is decoded greedily; the score, 1 to 5, is the reward. An answer without one is a failed
record that quotes it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from services.reward import qwen_vl
from services.reward.checkpoints import Placement, load_pretrained, ready
from services.reward.contract import Answer, Verdict

_SCORE = re.compile(r"Final Score:\s*\**\s*([1-5](?:\.\d+)?)(?![\d.]*\d)")


class UnifiedReward:
    """Wang and others' model, in its Qwen2.5-VL versions."""

    weights_need: ClassVar[tuple[str, ...]] = ("config.json",)
    base_need: ClassVar[tuple[str, ...]] = qwen_vl.NEEDS

    def __init__(
        self,
        weights: Path,
        base: Path,
        placement: Placement,
        prompt_file: Path,
        max_new_tokens: int = 512,
    ) -> None:
        """`prompt_file` is the question that this version was trained on, with {prompt} in it."""
        self._weights = weights
        self._base = base
        self._placement = placement
        self._max_new_tokens = max_new_tokens
        self._question = qwen_vl.read_question(prompt_file, ("{prompt}",))
        self._loaded: tuple[qwen_vl.QwenInputs, Any] | None = None

    def prepare(self) -> None:
        """Load the models, once."""
        self._loaded = self._loaded or self._load()

    def score(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Answer]:
        """The score that the model writes about every image."""
        return [verdict_of(text) for text in self.ask(images, prompts)]

    @torch.inference_mode()
    def ask(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[str]:
        """What the model writes about every image."""
        inputs, model = self._loaded = self._loaded or self._load()
        texts = [self._question.replace("{prompt}", prompt) for prompt in prompts]
        arguments = qwen_vl.on_device(inputs.build(images, texts, "left"), model)
        written = model.generate(**arguments, do_sample=False, max_new_tokens=self._max_new_tokens)
        answers = written[:, arguments["input_ids"].shape[1] :]
        return inputs.tokenizer.batch_decode(answers, skip_special_tokens=True)

    def _load(self) -> tuple[qwen_vl.QwenInputs, Any]:
        from transformers import Qwen2_5_VLForConditionalGeneration

        model = load_pretrained(
            Qwen2_5_VLForConditionalGeneration, self._weights, dtype=self._placement.torch_dtype
        )
        return qwen_vl.QwenInputs(self._base), ready(model, self._placement)


def verdict_of(text: str) -> Verdict:
    """The last final score of an answer; none is no value."""
    found = _SCORE.findall(text)
    if not found or not 1 <= float(found[-1]) <= 5:
        return Verdict(None, reason=f"wrote no score from 1 to 5 after 'Final Score:' but {text!r}")
    return Verdict(float(found[-1]), reason=text)
