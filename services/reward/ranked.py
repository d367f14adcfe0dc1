"""Another reward's order inside each group: what matters is who is better, not by how much.

    rank: the share of the group's other images that it beats, ties half:
          (#below + #equal / 2) / (n - 1), in [0, 1]
    best: 1 for the best image of the group, shared where several are, 0 for the others

An image that the other reward could not judge has no place; n counts those that have a value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, cast

from services.config import RewardConfig
from services.reward.contract import (
    Answer,
    Bounded,
    ChecksPrompts,
    GroupwiseReward,
    PointwiseReward,
    Prepares,
    RewardInput,
    Verdict,
    is_groupwise,
    verdict_of,
)
from services.reward.load import load_reward
from tdm_core.types import Prompt

MODES = ("rank", "best")


class Ranked:
    """Groupwise, over a pointwise or groupwise reward of any kind."""

    def __init__(
        self, kind: str, options: Mapping[str, Any] | None = None, mode: str = "rank"
    ) -> None:
        """`kind` and `options` are the other reward's."""
        if mode not in MODES:
            raise ValueError(f"option mode={mode!r}; allowed: {', '.join(MODES)}")
        if kind == "human":
            raise ValueError(
                "option kind='human'; people's likes are late, any other kind is allowed"
            )
        # The deadline is that of this reward, whose budget is held against it.
        inner = RewardConfig(
            name="inner", kind=kind, options=dict(options or {}), deadline_s=math.inf
        )
        self._inner = load_reward(inner)
        if isinstance(self._inner, Bounded):
            self.budget_s = self._inner.budget_s
        self._place = rank if mode == "rank" else best
        self.version = f"1:{mode}:{kind}:{self._inner.version}"
        self.requires = tuple(dict.fromkeys((*self._inner.requires, "group")))

    def check_prompt(self, prompt: Prompt) -> None:
        """As the other reward does."""
        if isinstance(self._inner, ChecksPrompts):
            self._inner.check_prompt(prompt)

    def prepare(self) -> None:
        """As the other reward does."""
        if isinstance(self._inner, Prepares):
            self._inner.prepare()

    def evaluate(self, batch: list[list[RewardInput]]) -> list[list[Answer]]:
        """The place of every image in its group, with the other reward's value among the parts."""
        return [self._ranked([verdict_of(a) for a in answers]) for answers in self._judge(batch)]

    def _judge(self, batch: list[list[RewardInput]]) -> Sequence[Sequence[Answer]]:
        if is_groupwise(self._inner):
            return cast(GroupwiseReward, self._inner).evaluate(batch)
        items = [item for unit in batch for item in unit]
        answers = list(cast(PointwiseReward, self._inner).evaluate(items))
        if len(answers) != len(items):
            raise ValueError(
                f"the ranked reward gave {len(answers)} answers for {len(items)} images"
            )
        ends = list(accumulate(map(len, batch)))
        return [answers[end - len(unit) : end] for unit, end in zip(batch, ends, strict=True)]

    def _ranked(self, verdicts: Sequence[Verdict]) -> list[Answer]:
        values = [verdict.value for verdict in verdicts if verdict.value is not None]
        return [self._verdict(verdict, values) for verdict in verdicts]

    def _verdict(self, verdict: Verdict, values: Sequence[float]) -> Verdict:
        if verdict.value is None:
            return verdict
        if len(values) < 2:
            return Verdict(None, reason="no other image of its group has a value to compare with")
        parts = {"value": verdict.value, **verdict.parts}
        return replace(verdict, value=self._place(verdict.value, values), parts=parts)


def rank(value: float, values: Sequence[float]) -> float:
    """Share of the other `values` that lie below `value`, which is one of them; equal ones half."""
    below = sum(other < value for other in values)
    equal = sum(other == value for other in values) - 1
    return (below + equal / 2) / (len(values) - 1)


def best(value: float, values: Sequence[float]) -> float:
    """1 for the largest of `values`, divided among the equal ones; 0 below it."""
    top = max(values)
    return 1 / sum(other == top for other in values) if value == top else 0.0
