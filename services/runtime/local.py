"""Workers as threads of this process: the runtime for debugging, tests and small runs.

A host has one thread, so its workers answer one call at a time, as a Ray actor does.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from services.runtime.handles import Employer, Handle, HostSpec, ProcessState, Resync
from services.runtime.hosting import Host, gpu_in_use
from services.runtime.waiting import Patience


class _Thread:
    """A host with its thread."""

    def __init__(self, spec: HostSpec) -> None:
        if spec.ranks != 1:
            raise ValueError(
                f"{spec.name}: {spec.ranks} ranks on the local runtime, which has one process; "
                "use cluster.runtime=ray"
            )
        self.host = Host(spec)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=spec.name)

    async def run(self, function: Any, *args: Any) -> tuple[float, Any]:
        """Seconds of work and the answer."""
        return await asyncio.get_running_loop().run_in_executor(
            self.executor, _timed, function, args
        )


def _timed(function: Any, args: tuple[Any, ...]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = function(*args)
    return time.perf_counter() - start, answer


class LocalReference:
    """A call's Task, or one of its several answers.

    A Task and not a coroutine, since a reference is awaited by several: shielded, since one that
    gives up must not take it from the others.
    """

    def __init__(
        self, task: asyncio.Task[Any], what: str, patience: Patience, index: int | None
    ) -> None:
        self._task, self._what, self._patience, self._index = task, what, patience, index

    def __await__(self) -> Generator[Any, None, Any]:
        """The value."""
        return self._value().__await__()

    async def _value(self) -> Any:
        _, answer = await self._patience.wait(self._task, self._what)
        return answer if self._index is None else answer[self._index]

    async def settled(self) -> float:
        """Seconds of work, once it is done."""
        seconds, _ = await self._patience.wait(self._task, self._what)
        return seconds


class _LocalMethod:
    def __init__(self, handle: "LocalHandle", method: str) -> None:
        self._handle, self._method = handle, method

    def remote(self, *args: Any, num_returns: int = 1) -> Any:
        """Start the call; arguments that are references are awaited first."""
        handle = self._handle
        what = f"{handle.name}.{self._method}"
        task = asyncio.get_running_loop().create_task(self._call(args), name=what)
        task.add_done_callback(_seen)
        if num_returns == 1:
            return LocalReference(task, what, handle.patience, None)
        return tuple(
            LocalReference(task, what, handle.patience, index) for index in range(num_returns)
        )

    async def _call(self, args: tuple[Any, ...]) -> tuple[float, Any]:
        values = [await arg if inspect.isawaitable(arg) else arg for arg in args]
        handle = self._handle
        return await handle.thread.run(handle.thread.host.call, handle.name, self._method, *values)


def _seen(task: asyncio.Task[Any]) -> None:
    """A fault reaches whoever awaits the reference; asyncio need not report it a second time."""
    if not task.cancelled():
        task.exception()


class LocalHandle:
    """A worker in a thread of this process."""

    def __init__(self, name: str, thread: _Thread, patience: Patience) -> None:
        self.name, self.host = name, thread.host.spec.name
        self.thread, self.patience = thread, patience

    def __getattr__(self, method: str) -> _LocalMethod:
        return _LocalMethod(self, method)

    async def revived(self) -> None:
        """At once: a thread does not die."""

    def excuse(self) -> None:
        """Nothing: no restart is counted."""

    async def renewed(self, reason: str) -> bool:
        """Never: nothing can end a thread."""
        return False


class LocalRuntime:
    """Threads instead of processes; otherwise what `ClusterRuntime` is."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.elastic = False
        self._threads: dict[str, _Thread] = {}

    async def hire(self, name: str, employer: Employer) -> None:
        """Not here: see `elastic`."""
        raise AssertionError(f"{name}: the local runtime has a fixed number of workers")

    async def start(self, hosts: Sequence[HostSpec]) -> dict[str, Handle]:
        """Make the workers, host after host; raises what a constructor raised."""
        handles: dict[str, Handle] = {}
        for spec in hosts:
            if spec.standby:
                continue
            thread = self._threads[spec.name] = _Thread(spec)
            await self.patience.wait(thread.run(thread.host.build), f"{spec.name} to start")
            for name in spec.workers:
                handles[name] = LocalHandle(name, thread, self.patience)
        return handles

    async def supervise(self, resync: Resync) -> None:
        """Nothing to do: a thread does not die."""
        await asyncio.Event().wait()

    def processes(self) -> dict[str, ProcessState]:
        """Every host is this process."""
        gpu = gpu_in_use()
        here = ProcessState(
            pids=[os.getpid()],
            alive=True,
            restarts=0,
            heard_at=time.time(),
            gpus=[] if gpu is None else [gpu],
        )
        return dict.fromkeys(self._threads, here)

    async def close(self) -> None:
        """Drop calls that have not begun, and wait for those that have."""
        for thread in self._threads.values():
            await asyncio.to_thread(thread.executor.shutdown, wait=True, cancel_futures=True)
