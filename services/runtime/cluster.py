"""Workers as Ray actors; the only file that imports ray.

A generic actor hosts plain worker classes, so no worker knows of Ray. A call answers with one more
object than asked for: a small receipt, so that the driver can wait for latents without taking them.
"""

import asyncio
import gc
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from services.runtime.handles import (
    Employer,
    GpuState,
    Handle,
    HireFailedError,
    HostSpec,
    ProcessState,
    Resync,
    WorkerDiedError,
)
from services.runtime.hosting import Host, gpu_in_use
from services.runtime.waiting import Patience

log = logging.getLogger(__name__)

DEATH_NOTICE_S = 2.0
PULSE_S = 5.0
"""Between two answers of a process."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _HostActor(Host):
    """A host as Ray calls it: `work` in turn, `watch` beside it for as long as the host lives."""

    def work(self, num_returns: int, worker: str, method: str, *args: Any) -> tuple[Any, ...]:
        """The receipt (seconds of work), then the answers."""
        start = time.perf_counter()
        answer = self.call(worker, method, *args)
        answers = (answer,) if num_returns == 1 else tuple(answer)
        return (time.perf_counter() - start, *answers)

    def watch(self) -> None:
        """Never returns; its reference fails when the process ends."""
        threading.Event().wait()

    def pulse(self) -> GpuState | None:
        """Answers beside the work; with the GPU that it computes on, if it does."""
        return gpu_in_use()

    def free_address(self) -> str:
        """`host:port` where rank 0 may listen."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


class _Processes:
    """The actors of a host: one, or one a rank."""

    def __init__(self, spec: HostSpec, registry: dict[str, str], max_restarts: int) -> None:
        self.spec = spec
        self.registry = registry
        self.restarts, self.excused, self.max_restarts = 0, 0, max_restarts
        self.alive = asyncio.Event()
        self.ended: WorkerDiedError | None = None
        self.condemned = ""  # why it was ended on purpose
        self.actors: list[Any] = []
        self.pids: list[int] = []
        self.heard_at: float | None = None
        self.gpus: list[GpuState] = []

    @property
    def may_restart(self) -> bool:
        """Whether a death is mended by a new process."""
        return self.spec.restartable and self.restarts - self.excused < self.max_restarts

    async def start(self) -> None:
        """Make the processes and their workers; raises what a constructor raised."""
        spec, self.condemned = self.spec, ""
        options: dict[str, Any] = {
            "concurrency_groups": {"watch": 2},
            "num_cpus": spec.num_cpus,
            "num_gpus": spec.num_gpus,
        }
        actor = ray.remote(**options)(_HostActor)
        self.actors = [actor.remote(spec) for _ in range(spec.ranks)]
        self.registry.update((each._actor_id.hex(), spec.name) for each in self.actors)
        address = await self.actors[0].free_address.remote() if spec.ranks > 1 else ""
        built = [actor.build.remote(rank, address) for rank, actor in enumerate(self.actors)]
        await self.first_fault(built)
        self.pids = [await pid for pid in built]

    async def first_fault(self, objects: Sequence[Any]) -> None:
        """Wait for all; as soon as one fails raise its error as the worker raised it."""
        futures = [asyncio.wrap_future(each.future()) for each in objects]
        for future in futures:
            future.add_done_callback(_seen)
        done, left = await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
        faults = [fault for fault in map(_fault, done) if fault is not None]
        if faults and left:
            # A rank that lost its peer often says so before the peer's death is known.
            done, _ = await asyncio.wait(left, timeout=DEATH_NOTICE_S)
            faults += [fault for fault in map(_fault, done) if fault is not None]
        if faults:
            raise self._as_raised(max(faults, key=lambda fault: isinstance(fault, RayActorError)))

    def _as_raised(self, fault: BaseException) -> BaseException:
        """Ray's error as the worker's own, traceback in a note; a death as WorkerDiedError."""
        name, remote_traceback = self.spec.name, ""
        while isinstance(fault, RayTaskError):
            # A fault that came in through an argument is nested once a worker that it passed.
            remote_traceback = _COLOURS.sub("", str(fault))
            if not isinstance(fault.cause, BaseException):
                return RuntimeError(f"worker {name} failed:\n{remote_traceback}")
            fault = fault.cause
        if isinstance(fault, RayActorError):
            return self._as_death(fault)
        if remote_traceback and not getattr(fault, "__notes__", None):
            fault.add_note(f"raised in worker {name}:\n{remote_traceback}")
        return fault

    def _as_death(self, fault: RayActorError) -> WorkerDiedError:
        """Names the host that died, which may be one that made an argument."""
        host = self.registry.get(fault.actor_id or "", self.spec.name)
        reason = str(fault).strip()
        if fault.actor_id in [actor._actor_id.hex() for actor in self.actors]:
            self.alive.clear()
            reason = self.condemned or reason
        return WorkerDiedError(host, reason)

    async def death(self) -> WorkerDiedError:
        """Returns when a process of this host has ended, with what is known."""
        watches = [actor.watch.options(concurrency_group="watch").remote() for actor in self.actors]
        listening = asyncio.create_task(self._listen())
        try:
            await self.first_fault(watches)
        except WorkerDiedError as death:
            return death
        finally:
            listening.cancel()
        raise AssertionError(f"the watch of {self.spec.name} ended by itself")

    async def _listen(self) -> None:
        """Have every process answer now and then: one that lives and hangs does not."""
        with suppress(RayError):  # of a death the watch tells
            while True:
                pulses = [a.pulse.options(concurrency_group="watch").remote() for a in self.actors]
                gpus = await asyncio.gather(*pulses)
                self.heard_at, self.gpus = time.time(), [gpu for gpu in gpus if gpu is not None]
                await asyncio.sleep(PULSE_S)

    def kill(self) -> None:
        """End the processes at once."""
        for actor in self.actors:
            if ray.is_initialized():  # otherwise they ended with it, and a call would start another
                ray.kill(actor)


def _fault(future: asyncio.Future[Any]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None


def _seen(future: asyncio.Future[Any]) -> None:
    """A fault that nobody waits for any more, such as a killed worker's, is no news."""
    _fault(future)


class ClusterReference:
    """An answer in Ray's object store: one object a rank, of which rank 0's is the value."""

    def __init__(
        self, handle: "ClusterHandle", method: str, receipts: Sequence[Any], value: Any
    ) -> None:
        self._handle, self._receipts, self.value = handle, receipts, value
        self._what = f"{handle.name}.{method}"

    def __await__(self) -> Generator[Any, None, Any]:
        """The value."""
        return self._value().__await__()

    async def _value(self) -> Any:
        await self.settled()
        return await self.value

    async def settled(self) -> float:
        """Seconds of work of rank 0, once every rank is done."""
        processes = self._handle.processes
        wait = processes.first_fault(self._receipts)
        await self._handle.patience.wait(wait, self._what)
        return await self._receipts[0]


class _ClusterMethod:
    def __init__(self, handle: "ClusterHandle", method: str) -> None:
        self._handle, self._method = handle, method

    def remote(self, *args: Any, num_returns: int = 1) -> Any:
        """Start the call on every rank; arguments that are references are passed as objects."""
        handle, method = self._handle, self._method
        values = [arg.value if isinstance(arg, ClusterReference) else arg for arg in args]
        answers = [
            actor.work.options(num_returns=num_returns + 1, name=f"{handle.name}.{method}").remote(
                num_returns, handle.name, method, *values
            )
            for actor in handle.processes.actors
        ]
        receipts = [answer[0] for answer in answers]
        references = tuple(
            ClusterReference(handle, method, receipts, value) for value in answers[0][1:]
        )
        return references[0] if num_returns == 1 else references


class ClusterHandle:
    """A worker in a Ray actor, or in each of a group of them."""

    def __init__(self, name: str, processes: _Processes, patience: Patience) -> None:
        self.name, self.host = name, processes.spec.name
        self.processes, self.patience = processes, patience

    def __getattr__(self, method: str) -> _ClusterMethod:
        if method.startswith("__"):  # copy and pickle ask for these
            raise AttributeError(method)
        return _ClusterMethod(self, method)

    async def revived(self) -> None:
        """Wait until the host lives again; WorkerDiedError if it will not."""
        if self.processes.ended is not None:
            raise self.processes.ended
        await self.patience.wait(self.processes.alive.wait(), f"{self.name} to be restarted")
        if self.processes.ended is not None:
            raise self.processes.ended

    def excuse(self) -> None:
        """Let one death not count against the restarts."""
        self.processes.excused += 1

    async def renewed(self, reason: str) -> bool:
        """End the host and wait for its restart; False if it would not be restarted."""
        if not self.processes.may_restart:
            return False
        self.processes.condemned = f"it was ended, since {reason}"
        self.processes.alive.clear()
        self.processes.kill()
        await self.revived()
        return True


class ClusterRuntime:
    """Ray actors on the cluster at `address`, or on one started here and ended by `close`."""

    def __init__(self, patience: Patience, address: str | None = None, max_restarts: int = 3):
        self.patience = patience
        self.max_restarts = max_restarts
        self.elastic = True
        self._hosts: dict[str, _Processes] = {}
        self._standby: dict[str, HostSpec] = {}
        self._hired: dict[str, _Processes] = {}
        self._registry: dict[str, str] = {}  # Ray's actor id to host name
        self._address = address
        self._owns_ray = False

    async def start(self, hosts: Sequence[HostSpec]) -> dict[str, Handle]:
        """Make all workers at once; raises what a constructor raised."""
        self._connect(hosts)
        self._standby = {spec.name: spec for spec in hosts if spec.standby}
        for spec in _fit_cpus([spec for spec in hosts if not spec.standby]):
            self._hosts[spec.name] = _Processes(spec, self._registry, self.max_restarts)
        started = [
            self.patience.wait(host.start(), f"{name} to start (Ray has {_free()})")
            for name, host in self._hosts.items()
        ]
        await asyncio.gather(*started)
        for host in self._hosts.values():
            host.alive.set()
        return {name: each for host in self._hosts.values() for name, each in self._handles(host)}

    def _handles(self, host: _Processes) -> list[tuple[str, Handle]]:
        return [(name, ClusterHandle(name, host, self.patience)) for name in host.spec.workers]

    def _connect(self, hosts: Sequence[HostSpec]) -> None:
        # A receipt carries its call's error; Ray need not print the copies that nobody awaits.
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
        if ray.is_initialized():
            return
        # "local" by name: without it Ray joins whatever cluster last started on this machine.
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        wanted = sum(spec.num_cpus * spec.ranks for spec in hosts)
        local = {
            "num_cpus": max(os.cpu_count() or 1, int(wanted) + 1),
            "include_dashboard": False,
        }
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            **(local if address == "local" else {}),
        )
        self._owns_ray = True

    async def supervise(self, resync: Resync) -> None:
        """Restart hosts that may be, `max_restarts` times each; raise the death of another."""
        kept = [host for host in self._hosts.values() if not host.spec.hired]
        await asyncio.gather(*(self._keep(host, resync, lambda: None) for host in kept))

    async def hire(self, name: str, employer: Employer) -> None:
        """Run a host until the call is ended; see `Runtime`."""
        running = self._hosts.pop(name, None)  # since the run's start
        host = running or _Processes(self._standby[name], self._registry, self.max_restarts)
        self._standby[name], self._hired[name] = host.spec, host

        async def welcome(worker: str) -> None:
            await employer.welcome(ClusterHandle(worker, host, self.patience))

        end = "it was not needed any more"
        try:
            if not running:
                # Without a deadline: Ray may have to add a node for it, and nobody waits for it.
                start = f"{name} to start (Ray has {_free()})"
                await self.patience.wait(host.start(), start, endless=True)
                host.alive.set()
                await welcome(name)
            await self._keep(host, welcome, lambda: employer.miss(name))
        except Exception as fault:  # whatever its constructor raises, on whichever node it is
            end = str(fault)
            raise HireFailedError(name, fault) from fault
        finally:
            host.ended = WorkerDiedError(name, end)
            host.alive.set()  # whoever waits for its restart hears of its end
            host.kill()
            del self._hired[name]

    async def _keep(self, host: _Processes, resync: Resync, on_death: Callable[[], None]) -> None:
        while True:
            death = await host.death()
            host.alive.clear()
            on_death()
            if not host.may_restart:
                host.ended = _final(death, host)
                host.alive.set()
                raise host.ended
            host.restarts += 1
            counted = host.restarts - host.excused
            log.warning("%s; restart %d of %d", death, counted, self.max_restarts)
            try:
                host.kill()
                await self.patience.wait(host.start(), f"{host.spec.name} to restart")
                for worker in host.spec.workers:
                    await resync(worker)
            except WorkerDiedError as again:
                log.warning("%s, while it was restarted", again)
                continue  # its watch tells of that death too
            host.alive.set()

    def processes(self) -> dict[str, ProcessState]:
        """Every host, with the processes of its ranks."""
        return {
            name: ProcessState(
                pids=host.pids,
                alive=host.alive.is_set(),
                restarts=host.restarts,
                heard_at=host.heard_at,
                gpus=host.gpus,
            )
            for name, host in {**self._hosts, **self._hired}.items()
        }

    async def close(self) -> None:
        """Kill the actors made here, and leave (or end, if started here) the Ray cluster."""
        for host in (*self._hosts.values(), *self._hired.values()):
            host.kill()
        if self._owns_ray:
            leave()  # here, not in a thread: tasks of this loop hold references too


def leave() -> None:
    """End or leave Ray while nobody frees a reference.

    Whoever frees one after Ray's core has ended and before Python knows of it ends the process, by
    `_Exit(1)` and without a word. Any thread can: it need only be the one that collects garbage.
    """
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()


def _final(death: WorkerDiedError, host: _Processes) -> WorkerDiedError:
    if not host.spec.restartable:
        return death
    return WorkerDiedError(host.spec.name, f"{host.max_restarts} restarts were not enough; {death}")


def _free() -> str:
    """CPUs and GPUs that nobody has reserved, for the message of a wait."""
    free = ray.available_resources()
    return f"{free.get('CPU', 0):g} CPUs and {free.get('GPU', 0):g} GPUs free"


def _fit_cpus(hosts: Sequence[HostSpec]) -> list[HostSpec]:
    """The hosts with smaller CPU reservations where the cluster has too few CPUs.

    Workers mostly wait for one another, so they may share cores; a reservation that is never
    granted would be a run that never starts. GPUs are never shared this way.
    """
    wanted = sum(spec.num_cpus * spec.ranks for spec in hosts)
    free = ray.available_resources().get("CPU", 0.0)
    if wanted <= free:
        return list(hosts)
    log.warning("the run wants %g CPUs and Ray has %g free: its workers share them", wanted, free)
    share = int(1000 * free / wanted) / 1000
    # Ray takes fractions below 1 only: an actor of several CPUs gets a whole number of them.
    fitted = [share * spec.num_cpus for spec in hosts]
    return [
        replace(spec, num_cpus=cpus if cpus < 1 else int(cpus))
        for spec, cpus in zip(hosts, fitted, strict=True)
    ]
