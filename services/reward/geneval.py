"""GenEval as a reward: a detector looks, `geneval_rules` judges."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from services.prompts import check_clauses
from services.reward.contract import Answer, RewardInput, Verdict
from services.reward.geneval_rules import (
    DetectedObject,
    objects_by_class,
    score_soft,
    score_strict,
)
from services.reward.geneval_sight import open_sight
from tdm_core.types import Prompt


class GenevalReward:
    """Counts, colours and positions of objects, as the prompt's metadata demands them."""

    requires = ("image", "metadata")

    def __init__(
        self,
        detector: str = "stickers",
        score: Literal["strict", "soft"] = "strict",
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        weights: str | None = None,
        clip: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """See docs/rewards.md; thresholds are confidences, from `weights` on is for mask2former."""
        if score not in ("strict", "soft"):
            raise ValueError(f"option score={score!r}: allowed are strict, soft")
        for name, limit in (("threshold", threshold), ("counting_threshold", counting_threshold)):
            if not isinstance(limit, int | float) or not 0 <= limit < 1:
                raise ValueError(f"option {name}={limit!r}: allowed is a confidence in [0, 1)")
        models = {"weights": weights, "clip": clip, "device": device, "dtype": dtype}
        given = {name: value for name, value in models.items() if value is not None}
        self._score = score
        self._limits = (float(threshold), float(counting_threshold))
        self._detector = detector
        self._sight = open_sight(detector, self._limits, given)
        self.version = f"1:{self._sight.version}:{score}:{threshold:g}:{counting_threshold:g}"

    def check_prompt(self, prompt: Prompt) -> None:
        """Raise ValueError where metadata is not GenEval's, or a class or color is unknown."""
        check_clauses(prompt.metadata)
        for clause in [*prompt.metadata.get("include", []), *prompt.metadata.get("exclude", [])]:
            self._check_known("see", clause["class"], self._sight.classes)
            if "color" in clause:
                self._check_known("tell the color", clause["color"], self._sight.colors)

    def _check_known(self, can: str, word: str, known: Sequence[str]) -> None:
        if known and word not in known:
            raise ValueError(
                f"the detector {self._detector!r} cannot {can} {word!r}, only {', '.join(known)}; "
                "use another detector or other prompts"
            )

    def prepare(self) -> None:
        """Load the detector, once."""
        self._sight.prepare()

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The chosen score of every image, both scores and the clauses' counts as parts."""
        sights = self._sight.look(batch)
        return [self._judge(item, seen) for item, seen in zip(batch, sights, strict=True)]

    def _judge(self, item: RewardInput, detections: Sequence[DetectedObject]) -> Verdict:
        metadata = item.prompt.metadata
        passed, reason = score_strict(metadata, detections, *self._limits)
        soft = score_soft(metadata, detections, *self._limits)
        found = objects_by_class(metadata, detections, *self._limits)
        return Verdict(
            value=float(passed) if self._score == "strict" else soft,
            parts={"strict": float(passed), "soft": soft, **_clause_counts(metadata, found)},
            reason=reason or "all clauses hold",
        )


def _clause_counts(
    metadata: Mapping[str, Any], found: Mapping[str, Sequence[DetectedObject]]
) -> dict[str, float]:
    """How many objects of each clause there are, and how many of those it takes fit its colour."""
    counts: dict[str, float] = {}
    for key in ("include", "exclude"):
        for place, clause in enumerate(metadata.get(key, [])):
            objects = found.get(clause["class"], [])
            name = f"{key} {place} {clause['class']}"
            counts[f"{name}: found"] = float(len(objects))
            if "color" in clause:
                fitting = sum(one.color == clause["color"] for one in objects[: clause["count"]])
                counts[f"{name}: {clause['color']}"] = float(fitting)
    return counts
