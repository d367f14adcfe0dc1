"""Plain workers that the Ray tests put into actors."""

import os
import sys
import time
from pathlib import Path

import torch


class Maker:
    """Makes tensors, notes what happens to it."""

    def __init__(self, rank: int = 0, world_size: int = 1, rendezvous: str = "") -> None:
        self.place = (rank, world_size, rendezvous)
        self.version = 0

    def make(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tensors of `size` numbers: the version, then zeros."""
        return torch.full((size,), float(self.version)), torch.zeros(size)

    def total(self, numbers: torch.Tensor) -> float:
        """Sum of the numbers."""
        return float(numbers.sum())

    def load(self, version: int) -> int:
        """Take a version."""
        self.version = version
        return version

    def fail(self, kind: str = "surrogate") -> None:
        """Raises."""
        raise ValueError(f"{kind} got NaN from rank {self.place[0]}")

    def fail_or_hang(self) -> None:
        """Rank 1 raises while rank 0 waits for it, as in a collective."""
        if self.place[0] == 1:
            raise ValueError("rank 1 cannot go on")
        time.sleep(60)

    def slow(self, seconds: float) -> int:
        """Sleeps, answers its process."""
        time.sleep(seconds)
        return os.getpid()

    def die(self) -> None:
        """Ends its process as a crash does."""
        os._exit(1)

    def die_once(self, marker: str) -> int:
        """Dies if the file is not there yet, and answers its version otherwise."""
        if not Path(marker).exists():
            Path(marker).touch()
            os._exit(1)
        return self.version

    def surroundings(self) -> dict[str, object]:
        """What a worker finds in its process."""
        return {
            "threads": torch.get_num_threads(),
            "omp": os.environ["OMP_NUM_THREADS"],
            "policy": os.environ["OMP_WAIT_POLICY"],
            "directory_on_path": os.getcwd() in sys.path or "" in sys.path,
            "place": self.place,
        }


class Unbuildable:
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError("model.teacher='nowhere' is not a folder")
