"""The stored images of a run's evaluations: image i has the same prompt and noise at every one."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.run_store.forms import is_evaluation
from services.run_store.images import ImageStore
from services.run_store.tail import Tail


@dataclass(frozen=True)
class HeldOutImage:
    """One image of an evaluation."""

    number: int
    """Its place among the held-out prompts, the same at every evaluation."""
    prompt_id: str
    prompt: str
    digest: str
    rewards: Mapping[str, Mapping[str, Any]]
    """As of a rollout's image; empty until all have judged."""

    def value(self, reward: str) -> float | None:
        """What a reward gave it; None where it has given nothing."""
        return self.rewards.get(reward, {}).get("value")


@dataclass(frozen=True)
class Evaluation:
    """What is stored of one evaluation."""

    label: str
    """`teacher`, `before`, `step_000100`, `after`, or that of `tdm-r1 eval`."""
    time: float
    """When its images were there, Unix seconds."""
    policy_version: int | None
    """Of the averaged generator; None for the teacher."""
    images: tuple[HeldOutImage, ...]

    @property
    def rewards(self) -> list[str]:
        """Names of those that have judged."""
        return list(dict.fromkeys(name for image in self.images for name in image.rewards))


class HeldOut:
    """Reads the index of a run's evaluations as it grows."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the run's `evaluations`."""
        self.store = ImageStore(folder)
        self._lock = threading.Lock()
        self.rest()

    def rest(self) -> None:
        """Forget what was read; it is read again when it is asked for."""
        self._tail = Tail(self.store.index_path, is_ours=is_evaluation)
        self._known: dict[str, Evaluation] = {}

    def all(self) -> list[Evaluation]:
        """Oldest first; of a label that was evaluated again the newest."""
        with self._lock:
            for line in self._tail.read_all():
                self._take(line)
            if self._tail.is_over:
                self.rest()
            return sorted(self._known.values(), key=lambda each: each.time)

    def image(self, digest: str) -> Path | None:
        """Where an image lies; None for what no evaluation stored."""
        images = (image for each in self.all() for image in each.images)
        is_ours = any(image.digest == digest for image in images)
        return self.store.path(digest) if is_ours else None

    def _take(self, line: Mapping[str, Any]) -> None:
        label = line["evaluation"]
        if "images" in line:
            images = tuple(HeldOutImage(**_known(each), rewards={}) for each in line["images"])
            version = line.get("policy_version")
            self._known[label] = Evaluation(label, line["time"], version, images)
        elif label in self._known:
            said = {each["number"]: each["rewards"] for each in line.get("verdicts", [])}
            before = self._known[label]
            judged = (replace(i, rewards=said.get(i.number, i.rewards)) for i in before.images)
            self._known[label] = replace(before, images=tuple(judged))


def _known(image: Mapping[str, Any]) -> dict[str, Any]:
    return {name: image[name] for name in ("number", "prompt_id", "prompt", "digest")}
