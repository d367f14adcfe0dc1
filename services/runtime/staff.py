"""Who works for a pool: the workers that are free, the hired ones, and those that may not go on.

    free -> a batch -> free again
                    -> dead:  waited for until it lives again
                    -> doubtful: resting until another has tried what it failed at
                    -> unfit: started anew, or resting where the runtime cannot do that

Where the runtime can hire, there are as many as the queue asks for (`scaling`). One that cannot be
hired is done without: after a pause, longer each time, it is tried again.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from services.runtime.handles import Handle, Hire, HireFailedError, WorkerDiedError
from services.runtime.scaling import Scaler
from services.runtime.waiting import Pauses

log = logging.getLogger(__name__)

REST_S, MAX_REST_S = 5.0, 60.0
"""How long an unfit worker rests that cannot be started anew: at first, and at most."""
HIRE_AGAIN_S, MAX_HIRE_AGAIN_S = 10.0, 600.0
"""How long nobody is hired after somebody could not be: at first, and at most."""


class Staff:
    """The workers of one pool."""

    def __init__(
        self,
        handles: Sequence[Handle],
        scaler: Scaler,
        standby: Sequence[str] = (),
        hire: Hire | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`standby` names workers that `hire` can start; without it the number is fixed."""
        if not handles:
            raise ValueError("a pool of no workers; use at least one")
        self.news = asyncio.Event()
        self.first, self.free = handles[0], list(handles)
        self._scaler, self._hire, self._clock = scaler, hire, clock
        self._names = [*(handle.name for handle in handles), *standby]
        self._workers = {handle.name: handle for handle in handles}
        self._hired: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, Pauses] = {}
        self.resting: dict[str, str] = {}  # name to why it gets nothing to do
        self._hire_pauses = Pauses(HIRE_AGAIN_S, MAX_HIRE_AGAIN_S)
        self._hire_from, self._hire_fault = -math.inf, ""
        self._held: int | None = None

    @property
    def num_workers(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    @property
    def may_change(self) -> bool:
        """Whether their number may."""
        return self._hire is not None and len(self._names) > 1

    def hold(self, workers: int | None) -> None:
        """Have this many from now on, whatever waits; None is what the queue asks for.

        ValueError where there cannot be as many. Busy ones go when they are done.
        """
        fewest, most = self._scaler.bounds.fewest, self._scaler.bounds.most
        if not self.may_change:
            raise ValueError(
                f"its {self.num_workers} workers are fixed; cluster.runtime=ray and a max_workers "
                "above num_workers let them change"
            )
        if workers is not None and not fewest <= workers <= most:
            raise ValueError(
                f"{workers} workers: allowed {fewest} to {most} (num_workers to max_workers)"
            )
        self._held = workers
        self.news.set()

    def sizes(self) -> dict[str, int | None]:
        """How many workers there are, may be, and are held."""
        bounds = self._scaler.bounds
        most = bounds.most if self.may_change else self.num_workers
        return {
            "workers": self.num_workers,
            "fewest": bounds.fewest,
            "most": most,
            "held": self._held,
        }

    def others_work(self, handle: Handle) -> bool:
        """Whether any other worker is there and gets work."""
        return bool(self._workers.keys() - self.resting.keys() - {handle.name})

    @contextmanager
    def without(self, handle: Handle, why: str) -> Iterator[None]:
        """Meanwhile a worker gets nothing to do."""
        self.resting[handle.name] = why
        try:
            yield
        finally:
            del self.resting[handle.name]

    def take(self) -> Handle:
        """A free worker; the last ones of the list are idle first."""
        return self.free.pop(0)

    def enter(self, handle: Handle) -> None:
        """A worker is free."""
        self.free.append(handle)
        self.free.sort(key=lambda each: self._names.index(each.name))
        self.news.set()

    async def return_fit(self, handle: Handle, unfit: str) -> None:
        """A worker is done, and free unless it is `unfit`: that one is mended first."""
        if unfit:
            with self.without(handle, unfit):
                await self._mend(handle, unfit)
        else:
            self._rests.pop(handle.name, None)
            if handle.name in self._hired:
                self._hire_pauses.start_anew()
                self._hire_fault = ""
        self.enter(handle)

    async def _mend(self, handle: Handle, unfit: str) -> None:
        if await handle.renewed(unfit):
            return
        pause_s = self._rests.setdefault(handle.name, Pauses(REST_S, MAX_REST_S)).next_s()
        log.warning("%s gets nothing to do for %g s, since %s", handle.name, pause_s, unfit)
        await asyncio.sleep(pause_s)

    async def return_alive(self, handle: Handle) -> None:
        """A worker has died, and is free once it lives again; a hired one may be gone for good."""
        try:
            with self.without(handle, "it died"):
                await handle.revived()
        except WorkerDiedError:
            if handle.name not in self._hired:
                raise
        else:
            self.enter(handle)

    def resize(self, tasks: asyncio.TaskGroup, waiting: float) -> None:
        """Hire one more or end one, if it is time; `waiting` in batches nobody has begun."""
        if self._hire is None:
            return
        coming = [name for name in self._hired if name not in self._workers]
        idle, workers = len(self.free) + len(coming), len(self._workers) + len(coming)
        if self._held is None:
            step = self._scaler.step(self._clock(), waiting, idle, workers)
        else:
            step = self._held - workers
        if step > 0 and self._clock() >= self._hire_from:
            self._grow(tasks, self._hire)
        elif step < 0:
            self._shrink(coming)

    def _grow(self, tasks: asyncio.TaskGroup, hire: Hire) -> None:
        name = next(n for n in self._names if n not in self._workers and n not in self._hired)
        log.info("%s: too much is waiting, so another worker is started", name)
        self._hired[name] = tasks.create_task(self._employ(name, hire))

    async def _employ(self, name: str, hire: Hire) -> None:
        try:
            await hire(name, self._welcome)
        except HireFailedError as fault:
            self._dismiss(name)
            self._do_without(fault)

    def _welcome(self, handle: Handle) -> None:
        self._workers[handle.name] = handle
        self.enter(handle)

    def _do_without(self, fault: HireFailedError) -> None:
        """Hire nobody for a while; what is wrong is said once, not at every try."""
        pause_s = self._hire_pauses.next_s()
        self._hire_from = self._clock() + pause_s
        known, self._hire_fault = self._hire_fault, str(fault)
        log.log(
            logging.INFO if known == self._hire_fault else logging.WARNING,
            "%s; the run goes on with the other %d of its pool, and tries again after %g s",
            fault,
            self.num_workers,
            pause_s,
        )

    def _shrink(self, coming: Sequence[str]) -> None:
        """End a worker that has not come yet, or else the last of those with nothing to do."""
        idle = [handle.name for handle in self.free if handle.name in self._hired]
        if not coming and not idle:
            return
        name = coming[-1] if coming else idle[-1]
        log.info("%s: there is too little to do, so it is ended", name)
        self._dismiss(name).cancel()

    def _dismiss(self, name: str) -> asyncio.Task[None]:
        """Forget a hired worker; the call that keeps it alive."""
        self.free = [handle for handle in self.free if handle.name != name]
        self._workers.pop(name, None)
        return self._hired.pop(name)
