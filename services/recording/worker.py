"""Writes what is too large for the controller: rollout images with their rewards, checkpoints."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from services.checkpoint import save_checkpoint
from services.config import RunConfig, config_hash
from services.run_store.images import ImageStore, verdict
from services.run_store.promoted import promoted
from services.run_store.retention import Retention
from services.run_store.run_folder import BrokenRunError, RunFolder
from tdm_core.types import ImageGroup, PredictionImages, RewardRecord

log = logging.getLogger(__name__)


class Recorder:
    """The one writer of a run's images and checkpoints."""

    def __init__(self, config: RunConfig, folder: str) -> None:
        """`folder` is the run's."""
        self.config = config
        self.folder = RunFolder(Path(folder))
        self.store = ImageStore(self.folder.images)
        rule = config.telemetry.retention
        self.retention = None if rule.keeps_all else Retention(self.folder, rule)

    def record(
        self,
        step: int,
        groups: Sequence[ImageGroup],
        predictions: PredictionImages,
        *judged: Sequence[RewardRecord],
    ) -> int:
        """Store the first images of the one group, what each was predicted to be on its way, and
        what every reward said; how many. Then let those go that the run keeps no longer."""
        (group,) = groups
        count = min(self.config.telemetry.images_per_group, group.images_GS3HW.shape[0])
        rewards = _by_sample([record for records in judged for record in records])
        lines = [
            {
                "digest": self._add(group.images_GS3HW[sample, -1]),
                "predictions": [self._add(image) for image in _before_last(predictions, sample)],
                "sigmas": predictions.sigmas,
                "step": step,
                "group_id": group.group_id,
                "sample": sample,
                "policy_version": group.policy_version,
                "prompt_id": group.prompt.prompt_id,
                "prompt": group.prompt.text,
                "rewards": rewards.get((group.group_id, sample), {}),
            }
            for sample in range(count)
        ]
        self.store.append(lines)
        if self.retention is not None:
            self.retention.stored(lines)
            self.retention.apply()
        return count

    def _add(self, image_3HW: Tensor) -> str:
        return self.store.add(image_3HW.permute(1, 2, 0).numpy())

    def note(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append what happened to groups; a call that is made twice tells it twice."""
        if self.retention is not None:
            self.retention.happened(events)
        if events:
            with self.folder.groups.open("a") as file:
                file.write("".join(json.dumps(event, allow_nan=False) + "\n" for event in events))

    def checkpoint(
        self, step: int, facts: Mapping[str, Any], names: Sequence[str], *states: dict[str, Any]
    ) -> str:
        """Write the workers' states as the checkpoint of iteration `step`; its folder.

        `names` says whose each state is; it has `tensors` (part -> name -> tensor) and `facts`.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for state in states:
            assert not parts.keys() & state["tensors"].keys(), "a part belongs to one worker"
            parts |= state["tensors"]
        each = {name: state["facts"] for name, state in zip(names, states, strict=True)}
        whole = {**facts, "config_hash": config_hash(self.config), "workers": each}
        folder = self.folder.checkpoints / f"step_{step:06d}"
        keep = self.config.checkpoint.keep
        return str(save_checkpoint(folder, parts, whole, keep, self._is_promoted))

    def _is_promoted(self, name: str) -> bool:
        try:
            promotion = promoted(self.folder)
        except BrokenRunError as error:
            log.warning("no checkpoint is removed: %s", error)
            return True
        return promotion is not None and promotion.checkpoint == name


def _before_last(predictions: PredictionImages, sample: int) -> Sequence[Tensor]:
    """What one image was predicted to be before its last step; nothing where it is not stored."""
    images_NK3HW = predictions.images_NK3HW
    return [*images_NK3HW[sample]] if sample < len(images_NK3HW) else []


def _by_sample(
    records: Sequence[RewardRecord],
) -> dict[tuple[int, int], dict[str, dict[str, object]]]:
    """(group_id, sample) -> reward name -> what it said of the final image."""
    found: dict[tuple[int, int], dict[str, dict[str, object]]] = {}
    for record in sorted(records, key=lambda record: record.slot):
        said = found.setdefault((record.group_id, record.sample), {})
        said[record.reward] = verdict(record)
    return found
