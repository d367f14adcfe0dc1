"""A pool that does small pieces of work in batches, with as many workers as the queue asks for.

    judge, judge_together -> queue -> batch -> a free worker -> every piece's answer by itself

A worker that dies loses nothing: its batch goes to whoever is free next. One that says it is unfit
is started anew, or rests where the runtime cannot do that; it gets no batch meanwhile. Where the
runtime can hire workers, the pool grows while it is crowded and shrinks while it idles (`scaling`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from services.runtime.batches import BatchQueue, Piece
from services.runtime.costs import Costs
from services.runtime.handles import Handle, Hire, Reference, WorkerDiedError
from services.runtime.scaling import Scaler
from services.runtime.waiting import Pauses

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often a pool that may change its size looks whether it should."""
REST_S, MAX_REST_S = 5.0, 60.0
"""How long an unfit worker rests that cannot be started anew: at first, and at most."""


class BatchPool:
    """Interchangeable workers with a method `judge(*pieces)`: a report, then an answer each.

    The report has counts, and under `unfit` why the worker should get no more, if it should not.
    """

    def __init__(
        self,
        handles: Sequence[Handle],
        queue: BatchQueue,
        scaler: Scaler,
        standby: Sequence[str] = (),
        hire: Hire | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`standby` names workers that `hire` can start; without it the size is fixed."""
        if not handles:
            raise ValueError("a pool of no workers; use at least one")
        self.costs = Costs(queue.size)
        self._queue, self._scaler, self._clock = queue, scaler, clock
        self._hire = hire
        self._names = [*(handle.name for handle in handles), *standby]
        self._free = list(handles)
        self._workers = {handle.name: handle for handle in handles}
        self._hired: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, Pauses] = {}
        self._news = asyncio.Event()

    @property
    def num_workers(self) -> int:
        """Workers that are there."""
        return len(self._workers)

    @property
    def depth(self) -> int:
        """How much waits for a worker."""
        return self._queue.depth

    async def judge(
        self, reference: Reference, size: int, wanted: Callable[[], bool] = lambda: True
    ) -> Reference | None:
        """The answer to one piece, which may share a batch with any other.

        None if it was let go: no longer wanted, or pushed out of a queue that is full.
        """
        piece = Piece(reference, size, self._clock(), wanted)
        pushed_out = self._queue.put(piece)
        if pushed_out is not None:
            self._let_go(pushed_out, "overflow")
        self._news.set()
        return await piece.answer

    async def judge_together(self, references: Sequence[Reference], size: int) -> list[Reference]:
        """The answers to pieces of `size` each, which share batches with one another only."""
        pieces = [Piece(reference, size, self._clock()) for reference in references]
        self._queue.put_together(pieces)
        self._news.set()
        answers = await asyncio.gather(*(piece.answer for piece in pieces))
        assert None not in answers, "these are wanted until they are done"
        return answers

    async def serve(self) -> None:
        """Give batches to free workers, and mind the pool's size; never returns.

        Consumes pieces. Produces their answers. Waits for a piece and a free worker. Unblocked by
        `judge`, by workers that are done, by the clock where a batch waits for company. What a
        worker raises ends it.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                self._give_out(tasks)
                self._resize(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._news.wait()

    def _give_out(self, tasks: asyncio.TaskGroup) -> None:
        while self._free and (taken := self._queue.take(self._clock())):
            batch = [piece for piece in taken if self._is_wanted(piece)]
            if batch:
                # The first of the list is the longest there, so the last ones are idle first.
                tasks.create_task(self._do(self._free.pop(0), batch))

    def _is_wanted(self, piece: Piece) -> bool:
        if piece.answer.done():  # whoever waited has gone
            return False
        if not piece.wanted():
            self._let_go(piece, "too_old")
            return False
        return True

    def _let_go(self, piece: Piece, reason: str) -> None:
        self.costs.count(f"expired/{reason}", piece.size)
        if not piece.answer.done():
            piece.answer.set_result(None)

    async def _do(self, handle: Handle, batch: list[Piece]) -> None:
        began = self._clock()
        given = [piece.reference for piece in batch]
        report, *answers = handle.judge.remote(*given, num_returns=1 + len(batch))
        try:
            seconds = await report.settled()
            counts = dict(await report)
        except WorkerDiedError as death:
            if death.host != handle.host:
                raise  # what the pieces came from died, so no worker of this pool can help
            self.costs.count("reissued", len(batch))
            self._queue.put_back(batch)
            self._news.set()
            await handle.revived()
        else:
            unfit = counts.pop("unfit", "")
            self.costs.note_batch(seconds, [began - piece.since for piece in batch], counts)
            for piece, answer in zip(batch, answers, strict=True):
                if not piece.answer.done():
                    piece.answer.set_result(answer)
            await self._mend(handle, unfit)
        self._enter(handle)

    async def _mend(self, handle: Handle, unfit: str) -> None:
        """Have an unfit worker started anew, or let it rest: it would only spoil batches."""
        if not unfit:
            self._rests.pop(handle.name, None)
        elif not await handle.renewed(unfit):
            pause_s = self._rests.setdefault(handle.name, Pauses(REST_S, MAX_REST_S)).next_s()
            log.warning("%s gets nothing to do for %g s, since %s", handle.name, pause_s, unfit)
            await asyncio.sleep(pause_s)

    def _enter(self, handle: Handle) -> None:
        """A worker is free."""
        self._free.append(handle)
        self._free.sort(key=lambda each: self._names.index(each.name))
        self._news.set()

    def _pause_s(self) -> float | None:
        """Until the next look, unless there is news."""
        looks = [LOOK_S] if self._hire and len(self._names) > 1 else []
        due_in_s = self._queue.due_in_s(self._clock())
        if self._free and due_in_s is not None:
            looks.append(due_in_s)
        return min(looks, default=None)

    # Its size

    def _resize(self, tasks: asyncio.TaskGroup) -> None:
        if self._hire is None:
            return
        coming = [name for name in self._hired if name not in self._workers]
        waiting, idle = self._queue.depth / self._queue.size, len(self._free) + len(coming)
        workers = len(self._workers) + len(coming)
        step = self._scaler.step(self._clock(), waiting, idle, workers)
        if step > 0:
            self._grow(tasks, self._hire)
        elif step < 0:
            self._shrink(coming)

    def _grow(self, tasks: asyncio.TaskGroup, hire: Hire) -> None:
        name = next(n for n in self._names if n not in self._workers and n not in self._hired)
        log.info("%s: %d waiting, so another worker is started", name, self._queue.depth)
        self._hired[name] = tasks.create_task(hire(name, self._welcome))

    def _welcome(self, handle: Handle) -> None:
        self._workers[handle.name] = handle
        self._enter(handle)

    def _shrink(self, coming: Sequence[str]) -> None:
        """End a worker that has not come yet, or else the last of those with nothing to do."""
        name = coming[-1] if coming else self._last_idle()
        if name is None:
            return
        log.info("%s: there is too little to do, so it is ended", name)
        self._free = [handle for handle in self._free if handle.name != name]
        self._workers.pop(name, None)
        self._hired.pop(name).cancel()

    def _last_idle(self) -> str | None:
        idle = [handle.name for handle in self._free if handle.name in self._hired]
        return idle[-1] if idle else None
