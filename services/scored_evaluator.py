"""An evaluator with a worker of each of its config's rewards, in one process and without a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.config import RunConfig
from services.evaluation.evaluator import Evaluator
from services.evaluation.parts import parts_of_singles
from services.models.backbone import Backbone
from services.reward.worker import RewardWorker
from services.weights import PublishedWeights


class ScoredEvaluator:
    """Generates held-out images and has them judged."""

    def __init__(
        self, config: RunConfig, folder: str | Path, backbone: Backbone | None = None
    ) -> None:
        self._evaluator = Evaluator(config, folder, backbone)
        self._judges = {reward.name: RewardWorker(reward) for reward in config.judges}
        self._groups = any(judge.groupwise for judge in self._judges.values())
        self._num_singles = len(parts_of_singles(config))

    def evaluate(self, published: PublishedWeights | None, label: str) -> dict[str, Any]:
        """Scores of these generator weights (None: as loaded), and what `generate` says of them."""
        return self._scored(*self._evaluator.generate(published, label, self._groups))

    def evaluate_teacher(self) -> dict[str, Any]:
        """Scores of the frozen teacher."""
        return self._scored(*self._evaluator.generate_teacher(self._groups))

    def _scored(self, facts: dict[str, Any], *parts: Sequence[Any]) -> dict[str, Any]:
        singles, groups = parts[: self._num_singles], parts[self._num_singles :]
        shown = {False: singles, True: groups}
        judged = [
            (name, judge.evaluate([group for part in shown[judge.groupwise] for group in part]))
            for name, judge in self._judges.items()
        ]
        names, records = zip(*judged, strict=True)
        return self._evaluator.score(facts["label"], names, *records) | facts
