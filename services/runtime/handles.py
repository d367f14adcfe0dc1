"""What the controller sees of a worker: a handle, and references to what it makes.

`handle.method.remote(*args, num_returns=1)` starts the call and answers with a reference (a tuple
of them for num_returns > 1). A reference may be awaited any number of times, or handed to another
worker as an argument; then the value goes from worker to worker and the controller never holds it.
"""

import importlib
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict


class WorkerDiedError(RuntimeError):
    """A worker's process ended; the message names the worker and what is known of its end."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"worker {host} died: {reason}")
        self.host = host


class HireFailedError(RuntimeError):
    """A worker that was to be hired could not be started, or not be kept; its cause says why."""

    def __init__(self, name: str, cause: BaseException) -> None:
        super().__init__(f"worker {name} cannot be hired: {type(cause).__name__}: {cause}")


@dataclass(frozen=True)
class Recipe:
    """How to make a worker, where it will live: nothing is imported before `build`."""

    target: str
    """`package.module:Class`, or a function that makes one."""
    args: tuple[Any, ...] = ()
    """Positional arguments; small, since they are sent to the worker's process."""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments."""

    def build(self, **more: Any) -> Any:
        """The object, with `more` keyword arguments."""
        module, _, name = self.target.partition(":")
        make = getattr(importlib.import_module(module), name)
        return make(*self.args, **self.keywords, **more)


@dataclass(frozen=True)
class HostSpec:
    """One process (on the local runtime: one thread) and the workers that live in it, in turn."""

    name: str
    """Unique in a run."""
    workers: Mapping[str, Recipe]
    """Worker name to recipe. The workers of a host never run at the same time."""
    backbone: Recipe | None = None
    """Made once and handed to every worker as `backbone`; None lets each make its own."""
    ranks: int = 1
    """Processes of a data-parallel group; each worker gets rank, world_size and rendezvous."""
    num_cpus: float = 1
    """CPUs a process reserves."""
    num_gpus: float = 0
    """GPUs a process reserves."""
    threads: int = 1
    """CPU threads a process computes with."""
    restartable: bool = False
    """Whether a death is mended by a new process; otherwise it ends the run."""
    hired: bool = False
    """It lives as long as the `Runtime.hire` that keeps it, and not as long as the run."""
    standby: bool = False
    """Of one that is hired: it starts then, and not with the run."""


class Reference(Protocol):
    """A value that a worker is making, wherever it lives."""

    def __await__(self) -> Generator[Any, None, Any]:
        """The value; raises what the worker raised."""
        ...

    async def settled(self) -> float:
        """Wait until the value is made, without moving it; the seconds of work it took."""
        ...


class Method(Protocol):
    """A worker's method."""

    def remote(self, *args: Any, num_returns: int = 1) -> Any:
        """Start the call: a Reference, or a tuple of `num_returns` of them."""
        ...


class Handle(Protocol):
    """A worker, wherever it lives; every attribute that is not declared here is a Method."""

    name: str
    host: str

    def __getattr__(self, method: str) -> Method: ...

    async def revived(self) -> None:
        """Wait until the worker lives again; WorkerDiedError if it will not."""
        ...

    def excuse(self) -> None:
        """Let one death not count against the restarts: what it was given is to blame."""
        ...

    async def renewed(self, reason: str) -> bool:
        """End the worker's process and wait for its restart; False if it would not be restarted."""
        ...


class GpuState(TypedDict):
    """The GPU that a process computes on."""

    name: str
    """What it is."""
    used_bytes: int
    """Memory that all its processes have."""
    total_bytes: int
    """Memory that there is."""
    utilisation: float | None
    """Share of the last moments that it computed in; None where nothing can tell."""


class ProcessState(TypedDict):
    """A host, as the run's status shows it."""

    pids: list[int]
    """Its processes, one a rank."""
    alive: bool
    """False from the notice of a death until the restart is done."""
    restarts: int
    """How often it was started again."""
    heard_at: float | None
    """Unix time at which its processes last answered, also amid their work; None before."""
    gpus: list[GpuState]
    """Of the ranks that compute on one."""


Resync = Callable[[str], Awaitable[None]]
"""Given the name of a restarted worker, brings it up to date."""


class Employer(Protocol):
    """Who hires workers."""

    async def welcome(self, handle: Handle) -> None:
        """A worker was started, or started again, then under another handle."""
        ...

    def miss(self, name: str) -> None:
        """A worker has died; it is welcomed again once it lives."""
        ...


Hire = Callable[[str, Employer], Coroutine[Any, Any, None]]
"""`Runtime.hire`."""


class Runtime(Protocol):
    """Starts workers, watches them, ends them."""

    elastic: bool
    """Whether it can `hire`."""

    async def start(self, hosts: Sequence[HostSpec]) -> dict[str, Handle]:
        """Worker name to handle, once every worker is made; raises what a constructor raised.

        Hosts on standby are only taken note of.
        """
        ...

    async def hire(self, name: str, employer: Employer) -> None:
        """Keep the host `name`, of one worker, running for as long as this call lives.

        One that is on standby starts first, however long it takes to find room; a death is mended
        as that of any other host. To end the call is to end the host, which can be hired again.
        Raises HireFailedError once it cannot be started, or has died too often.
        """
        ...

    async def supervise(self, resync: Resync) -> None:
        """Restart what may be restarted, and raise WorkerDiedError for the rest; never returns.

        Of all hosts but those that are hired.
        """
        ...

    def processes(self) -> dict[str, "ProcessState"]:
        """Host name to what is known of its processes; JSON-able."""
        ...

    async def close(self) -> None:
        """End every worker that was started here."""
        ...
