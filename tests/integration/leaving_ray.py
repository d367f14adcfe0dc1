"""A program whose garbage knows of Ray, collected while Ray ends: exit code 1 if both end then."""

import asyncio
import gc
from typing import Any

import ray

from services.runtime.cluster import ClusterRuntime
from services.runtime.waiting import Patience


class Ring:
    """Refers to itself, so only a collection frees what it holds."""

    def __init__(self, held: Any) -> None:
        self.ring, self.held = self, held


class Core:
    """Ray's core; at its end somebody collects garbage."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def shutdown_driver(self) -> None:
        """Where by then nothing happens by itself, and nothing of Ray is left to be found."""
        self._core.shutdown_driver()
        assert not gc.isenabled()
        gc.collect()


async def main() -> None:
    """Start and end."""
    runtime = ClusterRuntime(Patience(deadline_s=60))
    await runtime.start([])
    worker = ray._private.worker.global_worker
    worker.core_worker = Core(worker.core_worker)
    gc.set_threshold(0)  # the ring lasts until somebody asks
    Ring(ray.put(1))
    await runtime.close()
    assert gc.isenabled()


if __name__ == "__main__":
    asyncio.run(main())
