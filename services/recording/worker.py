"""Writes what is too large for the controller: rollout images, with what the rewards said."""

from collections.abc import Sequence
from pathlib import Path

from services.config import RunConfig
from services.run_store.images import ImageStore
from services.run_store.run_folder import RunFolder
from tdm_core.types import ImageGroup, RewardRecord


class Recorder:
    """The one writer of a run's image store."""

    def __init__(self, config: RunConfig, folder: str) -> None:
        """`folder` is the run's."""
        self.images_per_group = config.telemetry.images_per_group
        self.store = ImageStore(RunFolder(Path(folder)).images)

    def record(
        self, step: int, groups: Sequence[ImageGroup], *judged: Sequence[RewardRecord]
    ) -> int:
        """Store the first final images of each group and their rewards; how many."""
        rewards = _by_sample([record for records in judged for record in records])
        appearances = [
            {
                "digest": self.store.add(group.images_GS3HW[sample, -1].permute(1, 2, 0).numpy()),
                "step": step,
                "group_id": group.group_id,
                "sample": sample,
                "policy_version": group.policy_version,
                "prompt_id": group.prompt.prompt_id,
                "prompt": group.prompt.text,
                "rewards": rewards.get((group.group_id, sample), {}),
            }
            for group in groups
            for sample in range(min(self.images_per_group, group.images_GS3HW.shape[0]))
        ]
        self.store.append(appearances)
        return len(appearances)


def _by_sample(
    records: Sequence[RewardRecord],
) -> dict[tuple[int, int], dict[str, dict[str, object]]]:
    """(group_id, sample) -> reward name -> what it said of the final image."""
    found: dict[tuple[int, int], dict[str, dict[str, object]]] = {}
    for record in sorted(records, key=lambda record: record.slot):
        said = {"state": record.state, "value": record.value, "reason": record.reason}
        found.setdefault((record.group_id, record.sample), {})[record.reward] = said
    return found
