"""Plain workers for the tests of pools, and somebody who hires them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.runtime.batch_pool import BatchPool
from services.runtime.handles import (
    Employer,
    Handle,
    HireFailedError,
    HostSpec,
    Recipe,
    WorkerDiedError,
)
from services.runtime.local import LocalRuntime
from services.runtime.pool import Pool

go = threading.Event()
broken: set[str] = set()
"""Hosts whose every call raises."""


class Doubler:
    """Doubles every piece once `go` is set, and remembers its batches."""

    def __init__(self, host: str = "w0") -> None:
        self.host = host
        self.batches: list[list[int]] = []

    def judge(self, *pieces: int) -> tuple[object, ...]:
        """A report, then an answer each."""
        go.wait(20)
        if 13 in pieces:
            raise RuntimeError("thirteen")
        self.batches.append(list(pieces))
        if 66 in pieces or (55 in pieces and self.batches.count([*pieces]) == 1):
            raise WorkerDiedError(self.host, "SIGSEGV")
        if self.host in broken or 44 in pieces:
            report = {"images": len(pieces), "evaluations": 1, "failed/OSError": len(pieces)}
            return {**report, "raised": "OSError: no GPU"}, *(-1 for _ in pieces)
        unfit = {"unfit": "it judged 99"} if 99 in pieces else {}
        report = {"images": len(pieces), "evaluations": 1, **unfit}
        return report, *(2 * piece for piece in pieces)

    def seen(self) -> list[list[int]]:
        """Its batches."""
        return self.batches


class Follower:
    """Follows what it is told, once `go` is set, and says what it knew at its work."""

    def __init__(self) -> None:
        self.version = 0
        self.work_done: list[str] = []

    def load(self, version: int) -> int:
        """As rollout workers load weights."""
        go.wait(20)
        self.version = version
        return version

    def work(self, what: str, deadly_to: str = "") -> int:
        """The version, once `go` is set; it dies of what is deadly."""
        go.wait(20)
        self.work_done.append(what)
        if deadly_to:
            raise WorkerDiedError(deadly_to, "SIGSEGV")
        return self.version

    def done(self) -> list[str]:
        """Its work."""
        return self.work_done


@asynccontextmanager
async def served(pool: Pool | BatchPool, runtime: LocalRuntime) -> AsyncIterator[None]:
    """The pool's own loop runs beside the `with`, at whose end the workers go too."""
    serving = asyncio.create_task(pool.serve())
    try:
        yield
    finally:
        go.set()
        serving.cancel()
        await asyncio.wait([serving])
        await runtime.close()


class Hiring:
    """Hands out threads where a cluster would start processes; remembers who came and went."""

    def __init__(
        self, runtime: LocalRuntime, recipe: Recipe, faults: int = 0, **handles: Handle
    ) -> None:
        """The first `faults` workers cannot be started; `handles` are there from the start."""
        self.runtime, self.recipe, self.faults = runtime, recipe, faults
        self.handles, self.here = handles, set(handles)
        self.log: list[str] = []

    async def hire(self, name: str, employer: Employer) -> None:
        """As `Runtime.hire`."""
        if self.faults > 0:
            self.faults -= 1
            raise HireFailedError(name, ModuleNotFoundError("No module named 'cv2'"))
        if name not in self.here:
            self.handles |= await self.runtime.start([HostSpec(name, {name: self.recipe})])
            self.log.append(f"+{name}")
            await employer.welcome(self.handles[name])
        try:
            await asyncio.Event().wait()
        finally:
            self.log.append(f"-{name}")
            self.here.discard(name)
