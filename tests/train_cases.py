"""Toy runs for the tests of training: config, a run in a thread, its metrics."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.config import RunConfig, config_from_tree
from services.reward.contract import Answer, RewardInput
from services.reward.toy import UpperHalf
from services.run_store import commands
from services.run_store.run_folder import RunFolder
from services.train import train

ON_POLICY = {"max_staleness_generator": 0, "max_staleness_surrogate": 0}
PROMPTS = Path("configs/toy_prompts.txt")


HELD_OUT = {
    "prompts": {"heldout": str(PROMPTS.absolute())},
    "evaluation": {"num_images": 8, "num_stored": 4, "every": 1},
}
"""Changes that have a run evaluated."""


def tagged_prompts(folder: Path) -> dict[str, str]:
    """The toy world's prompts as a file that gives each a tag, to train on and to be held out."""
    path = folder / "tagged.jsonl"
    texts = PROMPTS.read_text().splitlines()
    lines = [{"prompt": text, "tag": text.replace(" ", "-")} for text in texts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"train": str(path), "heldout": str(path)}


def toy_run(runs: Path, **changes: Any) -> RunConfig:
    """The toy world as in configs/toy.yaml, with `changes` to its sections."""
    sections: dict[str, dict[str, Any]] = {
        "run": {"name": "toy", "iterations": 6, "dir": str(runs)},
        "algorithm": {
            "num_groups": 4,
            "group_size": 16,
            "surrogate": {"lr": 2e-3},
            "fake_score": {"lr": 2e-3},
            "generator": {"lr": 5e-4},
            "advantages": {"normaliser": "batch_std"},
            "replay": ON_POLICY,
        },
        "model": {"family": "toy", "teacher": "toy", "dtype": "float64", "device": "cpu"},
        "prompts": {"train": str(PROMPTS.absolute())},
        "cluster": {"runtime": "local", "engine": "torch", "rollout_groups": 4},
    }
    rewards = changes.pop("rewards", [reward()])
    for name, change in changes.items():
        sections[name] = sections.get(name, {}) | change
    return config_from_tree({**sections, "rewards": rewards}, "toy_run")


def reward(kind: str = "python:services.reward.toy:UpperHalf", **more: Any) -> dict[str, Any]:
    """The run's one reward."""
    return {"name": "upper_half", "kind": kind, **more}


def metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """Every line of a run's stream."""
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def numbers(folder: RunFolder) -> list[dict[str, Any]]:
    """Every line without what a clock measured."""
    return [
        {
            k: v
            for k, v in line.items()
            if k != "time" and "seconds" not in k and not k.endswith("_s")
        }
        for line in metrics(folder)
    ]


class Running:
    """A run in a thread of its own."""

    def __init__(self, config: RunConfig, name: str = "run") -> None:
        self.folder = RunFolder(config.run.dir / name)
        self.summary: dict[str, Any] = {}
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(config,))
        self._thread.start()

    def _run(self, config: RunConfig) -> None:
        try:
            self.summary = train(config, self.folder)
        except BaseException as fault:  # the test looks at it
            self.fault = fault

    def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 120) -> None:
        """Wait until the status is as wished; a run that does not come to it is stopped."""
        deadline = time.monotonic() + seconds
        while not condition(self.folder.status()):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                seen = self.fault or self.folder.status()
                commands.request(self.folder.path, "stop")
                self.join()
                raise AssertionError(f"not within {seconds} s: {seen!r}")
            time.sleep(0.05)

    def join(self, seconds: float = 120) -> None:
        """Wait for the end."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), self.folder.status()

    def kill(self, host: str, rank: int = 0) -> int:
        """SIGKILL the process of a worker's rank; its id."""
        process = self.folder.status()["workers"][host]["pids"][rank]
        assert process != os.getpid()
        os.kill(process, signal.SIGKILL)
        return process


class WaitingReward:
    """Answers once a file is there."""

    version = "1"
    requires = ("image",)

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """Zeros, in time."""
        while not self.file.exists():
            time.sleep(0.01)
        return [0.0] * len(batch)


class BrokenReward:
    """Never answers."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """Raises."""
        raise RuntimeError("the judge is out to lunch")


class HeldReward(UpperHalf):
    """Judges once `folder/hold` is gone; writes its process into `folder/busy` before."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """As `UpperHalf`, in time."""
        (self.folder / "busy").write_text(str(os.getpid()))
        while (self.folder / "hold").exists():
            time.sleep(0.01)
        return super().evaluate(batch)


class SlowReward(UpperHalf):
    """Takes a while for a call."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """As `UpperHalf`, later."""
        time.sleep(self.seconds)
        return super().evaluate(batch)


class DeadlyReward(UpperHalf):
    """Ends its process at one group, or at several."""

    def __init__(self, group_id: int, more: tuple[int, ...] = ()) -> None:
        self.group_ids = (group_id, *more)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """As `UpperHalf`, if it lives."""
        if any(item.group_id in self.group_ids for item in batch):
            os._exit(1)
        return super().evaluate(batch)


class OnceBroken(UpperHalf):
    """Raises in the process that is the first to judge; others are well."""

    def __init__(self, folder: str) -> None:
        self.broken = Path(folder) / "broken"

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """As `UpperHalf`, elsewhere."""
        with suppress(FileExistsError), self.broken.open("x") as file:
            file.write(str(os.getpid()))
        if self.broken.read_text() == str(os.getpid()):
            raise RuntimeError("no GPU")
        return super().evaluate(batch)


class UnpreparedReward(UpperHalf):
    """Cannot import what it needs where it works."""

    def prepare(self) -> None:
        """Raises."""
        raise ModuleNotFoundError("No module named 'no_such_engine'")


class Height:
    """How high a point of the toy world lies, without an end: easily gamed."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """0 to 1 over the whole picture."""
        return [float(item.image[0, 1, 0]) / 255 for item in batch]


class NearData:
    """Whether a point lies where the toy world's data are."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """1 within two standard deviations of a mode in both coordinates, else 0."""
        return [float(all(self._near(int(item.image[0, k, 0])) for k in (0, 1))) for item in batch]

    def _near(self, pixel: int) -> bool:
        return abs(abs(pixel - 128) / 32 - 1.5) < 0.6
