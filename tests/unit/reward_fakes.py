"""Rewards with a fault each, for tests; a config names them as python:reward_fakes:X."""

import importlib
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import torch

from services.reward.contract import Verdict

release = threading.Event()


class Brightness:
    """The image's first byte."""

    version = "7"
    requires = ("image",)

    def __init__(self):
        self.batches = []

    def evaluate(self, batch):
        self.batches.append(len(batch))
        return [float(item.image[0, 0, 0]) for item in batch]


odd_verdict: Any = Verdict

ODD_ANSWERS = (
    0.5,
    float("nan"),
    float("inf"),
    None,
    "good",
    Verdict(0.25, {"a": 1, "b": float("nan")}, "because"),
    Verdict(None, reason="it is blank"),
    True,
    torch.tensor(0.5, dtype=torch.float64),
    np.float32(0.5),
    torch.zeros(1),
    odd_verdict(1, {"tensor": torch.tensor(2.0), "text": "dog", "inf": float("inf")}, None),
    -(10**400),
    odd_verdict(1, [3]),
    odd_verdict(1, {"huge": 10**400, "\ud800": 2}, "half \ud83d", "v\ud800"),
)


class Odd(Brightness):
    """Answers of every kind, chosen by the image's first byte."""

    def evaluate(self, batch):
        return [ODD_ANSWERS[int(item.image[0, 0, 0])] for item in batch]


class Flaky(Brightness):
    """Raises on its first `faults` calls."""

    def __init__(self, faults):
        super().__init__()
        self.faults = faults

    def evaluate(self, batch):
        if self.faults > 0:
            self.faults -= 1
            raise OSError("the judge is away")
        return super().evaluate(batch)


class Picky(Brightness):
    """Raises on a batch that has a byte of 13."""

    def evaluate(self, batch):
        if any(item.image[0, 0, 0] == 13 for item in batch):
            raise RuntimeError("thirteen")
        return super().evaluate(batch)


class Hanging(Brightness):
    """Does not answer on a byte of 13 until the test releases it."""

    def evaluate(self, batch):
        if any(item.image[0, 0, 0] == 13 for item in batch):
            release.wait(20)
        return super().evaluate(batch)


class Interrupted(Hanging):
    """A byte of 13 is somebody's Ctrl-C, in the middle of judging it."""

    def evaluate(self, batch):
        if any(item.image[0, 0, 0] == 13 for item in batch):
            os.kill(os.getpid(), signal.SIGINT)
        return super().evaluate(batch)


class Stacking(Brightness):
    """Takes its batch as one array."""

    def evaluate(self, batch):
        return np.stack([item.image for item in batch])[:, 0, 0, 0].tolist()


class Prepared(Hanging):
    """Must be prepared before it judges."""

    prepared = 0

    def prepare(self):
        self.prepared += 1

    def evaluate(self, batch):
        assert self.prepared == 1
        return super().evaluate(batch)


class SlowlyPrepared(Hanging):
    """Takes a while to load, longer than a test gives it for a batch."""

    def prepare(self):
        time.sleep(0.3)


class Unprepared(Brightness):
    """Lacks what it would import."""

    def prepare(self):
        raise ModuleNotFoundError("No module named 'no_such_engine'")


class NeedsEngine(Brightness):
    """Imports its engine where it works."""

    def prepare(self):
        importlib.import_module("broken_engine")


class Quitting(Brightness):
    """Tries to end the process."""

    def evaluate(self, batch):
        raise SystemExit(3)


class Short(Brightness):
    """One answer too few."""

    def evaluate(self, batch):
        return super().evaluate(batch)[1:]


class Ranks:
    """Groupwise: the place of every image in its group."""

    version = "1"
    requires = ("image", "group")

    def evaluate(self, batch):
        return [self._ranks([int(item.image[0, 0, 0]) for item in group]) for group in batch]

    def _ranks(self, values):
        return [float(sorted(values).index(value)) for value in values]


class Slow(Brightness):
    """Takes 50 ms."""

    def evaluate(self, batch):
        time.sleep(0.05)
        return super().evaluate(batch)


class NeedsMetadata(Brightness):
    """Reads metadata, and wants a colour in it."""

    requires = ("image", "metadata")

    def check_prompt(self, prompt):
        if "colour" not in prompt.metadata:
            raise ValueError('its metadata has no "colour"')


class NoVersion:
    """Lacks a version."""

    requires = ("image",)

    def evaluate(self, batch):
        return [0.0] * len(batch)


class NoEvaluate:
    """Lacks evaluate."""

    version = "1"
    requires = ("image",)


class UnknownField(Brightness):
    """Requires what nobody has."""

    requires = ("depth",)


class Seen:
    """What a detector found."""

    def __init__(self, class_name, color=None, score=0.95, box=(0, 0, 10, 10)):
        self.class_name, self.color, self.score, self.box = class_name, color, score, box


SIGHTS = (
    [],
    [Seen("dog", "red"), Seen("dog", "blue", 0.5)],
    [Seen("cat", "black", box=(0, 0, 10, 10)), Seen("dog", "red", box=(40, 0, 50, 10))],
    [Seen("cat", "black", box=(40, 0, 50, 10)), Seen("dog", "red", box=(0, 0, 10, 10))],
)


def detect(image):
    """A detector that finds what the image's first byte says."""
    return SIGHTS[int(image[0, 0, 0])]


class Detector:
    """A detector that names its version."""

    def __init__(self, version):
        self.version = version

    def __call__(self, image):
        return detect(image)


detect_2, detect_3, detect_unsaid = Detector("2"), Detector("3"), Detector(3)
