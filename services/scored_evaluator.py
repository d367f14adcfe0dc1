"""Makes the evaluator with the run's own rewards, two siblings that do not know one another."""

from services.config import RunConfig
from services.evaluation.evaluator import Evaluator
from services.models.backbone import Backbone
from services.reward.worker import RewardWorker


def make_evaluator(config: RunConfig, folder: str, backbone: Backbone | None = None) -> Evaluator:
    """An evaluator whose judges are one worker of each automatic reward, in this process."""
    judges = {reward.name: RewardWorker(reward) for reward in config.judges}
    return Evaluator(config, folder, judges, backbone)
