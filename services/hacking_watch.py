"""Looks at a run's evaluations for reward hacking, and raises and clears its alerts.

Every trained reward is held against every one that is only evaluated; `tdm_core/reward_hacking.py`
has the rule. A reward of negative weight is better when it is lower.
"""

import logging
import time
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from services.config import RewardConfig, RunConfig
from services.run_store.alerts import AlertLog
from tdm_core.reward_hacking import HackingEpisode, HackingRule, Score, hacking_episodes

log = logging.getLogger(__name__)

Pair = tuple[RewardConfig, RewardConfig]


class HackingWatch:
    """One run's."""

    def __init__(
        self, config: RunConfig, alerts: AlertLog, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives Unix seconds."""
        evaluation = config.evaluation
        self.pairs: list[Pair] = list(product(config.automatic_rewards, evaluation.rewards))
        self._rule = HackingRule(
            evaluation.alert_sigmas,
            evaluation.alert_evaluations,
            # Each held-out reward has its share of the chance that one of them raises an alert.
            evaluation.alert_false_rate / max(len(evaluation.rewards), 1),
            _num_evaluations(config),
        )
        self._alerts, self._clock = alerts, clock
        self._seen: list[tuple[float, int, Mapping[str, Any]]] = []
        self._told: dict[str, dict[str, Any]] = {}
        if warning := too_few_evaluations(config):
            log.warning("%s", warning)

    @property
    def active(self) -> list[dict[str, Any]]:
        """Alerts that last."""
        return [alert for alert in self._told.values() if alert["cleared_at"] is None]

    def see(self, iteration: int, scores: Mapping[str, Any]) -> None:
        """Take in an evaluation (`score_table`'s numbers); write what it raises or clears."""
        self._seen.append((self._clock(), iteration, scores))
        for trained, heldout in self.pairs:
            found = hacking_episodes(self._scores(trained), self._scores(heldout), self._rule)
            for number, episode in enumerate(found, start=1):
                self._tell(self._alert(trained, heldout, number, episode))

    def _scores(self, reward: RewardConfig) -> list[Score | None]:
        sign = 1.0 if reward.weight > 0 else -1.0
        return [_score(scores, reward.name, sign) for _, _, scores in self._seen]

    def _tell(self, alert: dict[str, Any]) -> None:
        before = self._told.get(alert["id"])
        if alert == before:
            return
        self._told[alert["id"]] = alert
        self._alerts.write(alert)
        over = alert["cleared_at"] is not None
        log.warning("%s%s: %s", "over: " if over else "", alert["title"], alert["detail"])

    def _alert(
        self, trained: RewardConfig, heldout: RewardConfig, number: int, episode: HackingEpisode
    ) -> dict[str, Any]:
        raised_at, step, _ = self._seen[episode.raised]
        cleared_at, cleared_step = None, None
        if episode.cleared is not None:
            cleared_at, cleared_step, _ = self._seen[episode.cleared]
        since = self._seen[episode.best][1]
        return {
            "id": f"reward_hacking/{trained.name}/{heldout.name}/{number}",
            "rule": "reward_hacking",
            "severity": "critical",
            "title": f"{trained.name} is rewarded at the cost of {heldout.name}",
            "detail": (
                f"from iteration {since} to {step} the trained {trained.name} got better by "
                f"{episode.rise:.3g} and the held-out {heldout.name} worse by {episode.fall:.3g}"
            ),
            "remedy": (
                "look at the images: is the reward being gamed? Stop the run and take an earlier "
                "checkpoint, train on the held-out reward too, or lower "
                "algorithm.generator.reward_scale"
            ),
            "time": raised_at,
            "step": step,
            "cleared_at": cleared_at,
            "cleared_step": cleared_step,
            "trained": trained.name,
            "heldout": heldout.name,
            "since_step": since,
            "rise": episode.rise,
            "fall": episode.fall,
        }


def too_few_evaluations(config: RunConfig) -> str | None:
    """Why no alert can come of this run's evaluations, and what to set; None where one can."""
    evaluation, iterations = config.evaluation, config.run.iterations
    if not (evaluation.num_images and evaluation.rewards and config.automatic_rewards):
        return None
    number = _num_evaluations(config)
    if number > evaluation.alert_evaluations:
        return None
    return (
        f"evaluation.rewards are set, but with evaluation.every={evaluation.every} there are "
        f"{number} evaluations in {iterations} iterations, and a reward-hacking alert takes "
        f"{evaluation.alert_evaluations + 1} (evaluation.alert_evaluations and one to compare "
        "with): none can be raised; evaluate more often if you want to be told"
    )


def _num_evaluations(config: RunConfig) -> int:
    """One before training, those on the way, and one after."""
    iterations = config.run.iterations
    return 2 + max(iterations - 1, 0) // (config.evaluation.every or max(iterations, 1))


def _score(scores: Mapping[str, Any], name: str, sign: float) -> Score | None:
    """None where the reward judged no image, or only one: then nobody knows how sure it is."""
    error = scores.get(f"{name}/std_error")
    return None if error is None else Score(sign * scores[name], error)
