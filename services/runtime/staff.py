"""Who works for a pool: the workers that are free, the hired ones, and those that may not go on.

    free -> work -> free again, or ended where there are more than are held
                 -> dead:  missed until it lives again
                 -> doubtful: resting until another has tried what it failed at
                 -> unfit: started anew, or resting where the runtime cannot do that

Where the runtime can hire, there are as many as the queue asks for (`scaling`), or as people hold.
One that cannot be hired is done without: after a pause, longer each time, it is tried again.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from services.runtime.handles import Handle, Hire, HireFailedError, WorkerDiedError
from services.runtime.scaling import ScaleBounds, Scaler
from services.runtime.waiting import Changes, Pauses

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often a pool that may change its size looks whether it should."""
REST_S, MAX_REST_S = 5.0, 60.0
"""How long an unfit worker rests that cannot be started anew: at first, and at most."""
HIRE_AGAIN_S, MAX_HIRE_AGAIN_S = 10.0, 600.0
"""How long nobody is hired after somebody could not be: at first, and at most."""


class Staff:
    """The workers of one pool."""

    def __init__(
        self,
        handles: Sequence[Handle],
        bounds: ScaleBounds | None = None,
        standby: Sequence[str] = (),
        hire: Hire | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`standby` names workers that `hire` can start; without it the number is fixed.

        It also keeps those of `handles` that are more than the fewest, so that they may go too.
        """
        if not handles:
            raise ValueError("a pool of no workers; use at least one")
        self.news = Changes()
        self.first, self.free = handles[0], list(handles)
        self.bounds = bounds or ScaleBounds(len(handles), len(handles))
        self._scaler, self._hire, self._clock = Scaler(self.bounds), hire, clock
        self._names = [*(handle.name for handle in handles), *standby]
        self._workers = {handle.name: handle for handle in handles}
        self._hired: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, Pauses] = {}
        self.resting: dict[str, str] = {}  # name to why it gets nothing to do
        self._hire_pauses = Pauses(HIRE_AGAIN_S, MAX_HIRE_AGAIN_S)
        self._hire_from, self._hire_fault = -math.inf, ""
        self._held = None if self.bounds.is_automatic else len(handles)
        self._told: dict[str, tuple[Any, ...]] = {}

    @property
    def num_workers(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    @property
    def may_change(self) -> bool:
        """Whether their number may."""
        return self._hire is not None and self.bounds.fewest < self.bounds.most

    @property
    def look_s(self) -> float | None:
        """Seconds between two looks at their number (`resize`); None where it stays."""
        return LOOK_S if self.may_change else None

    def hold(self, workers: int | None) -> None:
        """Have this many from now on, whatever waits; None is what the queue asks for.

        ValueError where there cannot be as many. Busy ones go when they are done.
        """
        fewest, most = self.bounds.fewest, self.bounds.most
        if not self.may_change:
            raise ValueError(f"its {self.num_workers} workers are fixed")
        if workers is None and not self.bounds.is_automatic:
            raise ValueError(f"auto: it has no queue to follow; allowed {fewest} to {most}")
        if workers is not None and not fewest <= workers <= most:
            raise ValueError(f"{workers} workers: allowed {fewest} to {most}")
        self._held = workers
        self.news.tell()

    def sizes(self) -> dict[str, int | None]:
        """How many workers there are, may be, and are held; whether a queue can say how many."""
        here, bounds = self.num_workers, self.bounds
        fewest, most = (bounds.fewest, bounds.most) if self.may_change else (here, here)
        return {
            "workers": here,
            "fewest": fewest,
            "most": most,
            "held": self._held,
            "automatic": bounds.is_automatic,
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
            self.resting.pop(handle.name, None)

    def tell(self, method: str, *args: Any) -> Coroutine[Any, Any, list[Any]]:
        """Call every worker, before any call that comes later; await it for their answers.

        Whoever is started later is told too. One that dies answers None.
        """
        self._told[method] = args
        called = [(getattr(each, method).remote(*args), each) for each in self._workers.values()]
        return self._answers(called)

    async def _answers(self, called: Sequence[tuple[Any, Handle]]) -> list[Any]:
        return list(await asyncio.gather(*(self._unless_dead(*pair) for pair in called)))

    async def _unless_dead(self, reference: Any, handle: Handle) -> Any:
        try:
            return await reference
        except WorkerDiedError as death:
            if death.host != handle.host:
                raise
            await self.died(handle)
            return None

    async def brief(self, name: str) -> None:
        """Tell a worker that was started what all were told; nothing to one of another pool."""
        if handle := self._workers.get(name):
            for answer in [getattr(handle, m).remote(*args) for m, args in self._told.items()]:
                await answer

    def take(self) -> Handle:
        """A free worker; the last ones of the list are idle first."""
        return self.free.pop(0)

    def enter(self, handle: Handle) -> None:
        """A worker is free, unless it is missed or gone by now, or goes as one too many."""
        if self._workers.get(handle.name) is not handle:
            return
        if self._held is not None and self.num_workers > self._held and handle.name in self._hired:
            self._end(handle.name)
            return
        self.free.append(handle)
        self.free.sort(key=lambda each: self._names.index(each.name))
        self.news.tell()

    async def settle(self, handle: Handle, unfit: str = "") -> None:
        """A worker is done with its work; if it is `unfit` to go on, it is mended."""
        if unfit:
            with self.without(handle, unfit):
                await self._mend(handle, unfit)
        else:
            self._rests.pop(handle.name, None)
            if handle.name in self._hired:
                self._hire_pauses.start_anew()
                self._hire_fault = ""

    async def _mend(self, handle: Handle, unfit: str) -> None:
        try:
            if await handle.renewed(unfit):
                return
        except WorkerDiedError:
            if not self._may_go(handle.name):
                raise
            return  # it was ended meanwhile
        pause_s = self._rests.setdefault(handle.name, Pauses(REST_S, MAX_REST_S)).next_s()
        log.warning("%s gets nothing to do for %g s, since %s", handle.name, pause_s, unfit)
        await asyncio.sleep(pause_s)

    async def died(self, handle: Handle) -> None:
        """Wait until a worker that has died lives again; one that was hired is missed instead."""
        if not self._may_go(handle.name):
            with self.without(handle, "it died"):
                await handle.revived()
        elif self._workers.get(handle.name) is handle:
            self.miss(handle.name)

    def miss(self, name: str) -> None:
        """A hired worker has died: it gets nothing and counts for nothing until it is welcome."""
        self.free = [handle for handle in self.free if handle.name != name]
        self._workers.pop(name, None)

    async def welcome(self, handle: Handle) -> None:
        """A hired worker was started; before its first work it knows what all were told."""
        self._workers[handle.name] = handle  # and is told what they are told from now on
        await self.brief(handle.name)
        self.enter(handle)

    def _may_go(self, name: str) -> bool:
        return self._hire is not None and self._names.index(name) >= self.bounds.fewest

    def resize(self, tasks: asyncio.TaskGroup, waiting: float = 0.0) -> None:
        """Hire one more or end one, if it is time; `waiting` in batches nobody has begun."""
        if self._hire is None:
            return
        for name in self._workers:
            if self._may_go(name) and name not in self._hired:  # here since the run's start
                self._keep(name, tasks, self._hire)
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
        log.info("%s is started, as another worker of its pool", name)
        self._keep(name, tasks, hire)

    def _keep(self, name: str, tasks: asyncio.TaskGroup, hire: Hire) -> None:
        self._hired[name] = tasks.create_task(self._employ(name, hire))

    async def _employ(self, name: str, hire: Hire) -> None:
        try:
            await hire(name, self)
        except HireFailedError as fault:
            self._dismiss(name)
            self._do_without(fault)

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
        """End a worker that has not come (back) yet, or else the last with nothing to do."""
        idle = [handle.name for handle in self.free if handle.name in self._hired]
        if not coming and not idle:
            return
        self._end(coming[-1] if coming else idle[-1])

    def _end(self, name: str) -> None:
        log.info("%s is ended: its pool needs fewer workers", name)
        self._dismiss(name).cancel()

    def _dismiss(self, name: str) -> asyncio.Task[None]:
        """Forget a hired worker; the call that keeps it alive."""
        self.miss(name)
        return self._hired.pop(name)
