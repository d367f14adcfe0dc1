"""One stream of numbers a run: `metrics.jsonl`, one object a line, and writers that repeat it.

A line has time (Unix seconds), step (iteration), policy_version, surrogate_version, and numbers
named `stage/name`. A number that is not finite is written as null: missing is never zero.
"""

import importlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol


class Writer(Protocol):
    """Something that repeats the stream."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Finite numbers of one step."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class TensorBoardWriter:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path) -> None:
        try:
            module = importlib.import_module("tensorboard.summary")
        except ImportError as error:
            raise ValueError(
                "telemetry.tensorboard=true needs the package tensorboard; "
                "pip install 'tdm-r1[tensorboard]', or set it to false"
            ) from error
        self._writer = module.Writer(str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar a number."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandbWriter:
    """A Weights & Biases run."""

    def __init__(self, run_id: str, folder: Path) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise ValueError(
                "telemetry.wandb=true needs the package wandb; "
                "pip install 'tdm-r1[wandb]', or set it to false"
            ) from error
        self._run = wandb.init(project="tdm-r1", id=run_id, dir=str(folder), resume="allow")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One log call a step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run there."""
        self._run.finish()


class Telemetry:
    """Collects seconds and counts between lines, and writes the lines."""

    def __init__(self, path: Path, writers: Sequence[Writer] = ()) -> None:
        self._file = path.open("a", buffering=1)  # a line is on its way as soon as it is whole
        self._writers = writers
        self._sums: dict[str, float] = defaultdict(float)
        self._notes: dict[str, float] = {}
        self._since = time.perf_counter()
        self.num_lines = 0

    def add(self, name: str, value: float) -> None:
        """Add to a number that the next line carries and then starts anew, such as seconds."""
        self._sums[name] += value

    def note(self, metrics: Mapping[str, float]) -> None:
        """Numbers for the next line; of one noted twice the later stands."""
        self._notes.update(metrics)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the wall time inside as `seconds/name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(f"seconds/{name}", time.perf_counter() - start)

    def write(self, step: int, policy_version: int, surrogate_version: int) -> dict[str, Any]:
        """One line: what was noted and added since the last one, and how long ago that was."""
        now = time.perf_counter()
        elapsed, self._since = now - self._since, now
        numbers = {**self._notes, **self._sums, "seconds/iteration": elapsed}
        if "rollout/images" in numbers:
            numbers["rollout/images_per_s"] = numbers["rollout/images"] / elapsed
        self._sums.clear()
        self._notes.clear()
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        line = {
            "time": time.time(),
            "step": step,
            "policy_version": policy_version,
            "surrogate_version": surrogate_version,
            **dict.fromkeys(numbers),
            **finite,
        }
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self.num_lines += 1
        for writer in self._writers:
            writer.write(step, finite)
        return line

    def close(self) -> None:
        """Close the stream and its writers."""
        self._file.close()
        for writer in self._writers:
            writer.close()
