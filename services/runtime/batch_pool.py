"""A pool that does small pieces of work in batches, with as many workers as the queue asks for.

    judge, judge_together -> queue -> batch -> a free worker -> every piece's answer by itself

A worker that dies loses nothing: its batch goes to whoever is free next (`staff` says who that is).
Nor does one that fails at a whole batch at once, and so is free for the next: another tries the
batch, and if it can do it the first one is unfit.
What workers die of is not tried for ever: after `MAX_DEATHS` a batch is done piece by piece, and a
piece that yet another worker dies of is lost. Such deaths do not count against its workers'
restarts, bar one a piece until the worker has done another batch: what dies of everything ends.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from services.runtime.batches import OVERFLOW, BatchQueue, Death, Lost, Piece
from services.runtime.costs import Costs
from services.runtime.handles import Handle, Reference, WorkerDiedError
from services.runtime.staff import MAX_REST_S, Staff

log = logging.getLogger(__name__)

MAX_DEATHS = 2
"""Workers that may die at a batch before its pieces are done one by one."""


class BatchPool:
    """Interchangeable workers with a method `judge(*pieces)`: a report, then an answer each.

    The report has counts; under `unfit` why the worker should get no more, if it should not; and
    under `raised` why it could do nothing of the batch, if it could not.
    """

    def __init__(
        self,
        staff: Staff,
        queue: BatchQueue,
        fault_of: Callable[[Lost], Exception | None] = lambda lost: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fault_of` gives what is raised for a wanted piece that is lost, if anything is."""
        self._fault_of = fault_of
        self.costs = Costs(queue.size)
        self.staff = staff
        self._queue, self._clock = queue, clock
        self._news = staff.news
        self._unproven: defaultdict[str, list[Death]] = defaultdict(list)
        self._nobody_can = False  # two have failed at a batch, and nobody has done one since

    @property
    def depth(self) -> int:
        """How much waits for a worker."""
        return self._queue.depth

    async def judge(
        self, reference: Reference, size: int, wanted: Callable[[], bool] = lambda: True
    ) -> Reference | Lost:
        """The answer to one piece, which may share a batch with any other.

        It is lost if it was let go (no longer wanted, waiting for too long, or pushed out of a
        queue that is full), or if workers die of it.
        """
        piece = Piece(reference, size, self._clock(), wanted)
        pushed_out = self._queue.put(piece)
        if pushed_out is not None:
            self._lose(pushed_out, OVERFLOW)
        self._news.tell()
        return await piece.answer

    async def judge_together(
        self, references: Sequence[Reference], size: int
    ) -> list[Reference | Lost]:
        """The answers to pieces of `size` each, which share batches with one another only.

        Nothing but the death of its workers loses one.
        """
        pieces = [Piece(reference, size, self._clock()) for reference in references]
        self._queue.put_together(pieces)
        self._news.tell()
        return await asyncio.gather(*(piece.answer for piece in pieces))

    async def serve(self) -> None:
        """Give batches to free workers, and mind the pool's size; never returns.

        Consumes pieces. Produces their answers. Waits for a piece and a free worker. Unblocked by
        `judge`, by workers that are done, by the clock where a batch waits for company. What a
        worker raises ends it.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                for piece, lost in self._queue.clear_out(self._clock()):
                    self._lose(piece, lost)
                self._give_out(tasks)
                self.staff.resize(tasks, self._queue.depth / self._queue.size)
                await self._news.news(self._pause_s())

    def _give_out(self, tasks: asyncio.TaskGroup) -> None:
        while self.staff.free and (taken := self._queue.take(self._clock())):
            # Whoever waited for one of them may have gone.
            batch = [piece for piece in taken if not piece.answer.done()]
            if batch:
                tasks.create_task(self._do(self.staff.take(), batch))

    def _lose(self, piece: Piece, lost: Lost) -> None:
        self.costs.count(f"{lost.state}/{lost.kind}", piece.size)
        _tell_first([piece], could=False)
        if piece.answer.done():
            return
        fault = self._fault_of(lost) if piece.wanted() else None
        if fault is not None:
            piece.answer.set_exception(fault)
        else:
            piece.answer.set_result(lost)

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
            self._try_again(handle, batch, death)
            await self.staff.died(handle)
        else:
            unfit, raised = counts.pop("unfit", ""), counts.pop("raised", "")
            if raised and not unfit and self._another_may(handle, batch):
                unfit = await self._have_tried(handle, batch, raised)
            else:
                is_second = batch[0].second_try is not None
                self._nobody_can = bool(raised) and (self._nobody_can or is_second)
                _tell_first(batch, could=not raised)
                for proven in self._unproven.pop(handle.name, []):
                    proven.excuse()
                self.costs.note_batch(seconds, [began - piece.since for piece in batch], counts)
                for piece, answer in zip(batch, answers, strict=True):
                    if not piece.answer.done():
                        piece.answer.set_result(answer)
            await self.staff.settle(handle, unfit)
        finally:
            self.staff.enter(handle)

    def _another_may(self, handle: Handle, batch: list[Piece]) -> bool:
        first = batch[0].second_try is None
        return first and not self._nobody_can and self.staff.others_work(handle)

    async def _have_tried(self, handle: Handle, batch: list[Piece], raised: str) -> str:
        """Have another worker do what this one failed at; why it is unfit if that one could."""
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        for piece in batch:
            piece.second_try = outcome
        self.costs.count("handed_over", len(batch))
        self._queue.put_back(batch)
        self._news.tell()
        with self.staff.without(handle, raised):
            # Not for ever: the others may hang or die at it.
            await asyncio.wait([outcome], timeout=MAX_REST_S)
        could = outcome.done() and outcome.result()
        return f"another worker could do what it failed at: {raised}" if could else ""

    def _try_again(self, handle: Handle, batch: list[Piece], death: WorkerDiedError) -> None:
        """Have a batch done again, unless it is one piece that nobody survives."""
        noted = Death(handle)
        for piece in batch:
            piece.deaths.append(noted)
        deaths = len(batch[0].deaths)
        if len(batch) == 1 and deaths >= MAX_DEATHS:
            for explained in batch[0].deaths[:-1]:
                explained.excuse()
            self._unproven[handle.name].append(noted)
            reason = f"{deaths} workers died of it: {str(death).partition(chr(10))[0]}"
            log.warning("a piece of work is given up, since %s", reason)
            self._lose(batch[0], Lost("failed", "killed", reason))
            return
        self.costs.count("reissued", len(batch))
        self._queue.put_back(*([batch] if deaths < MAX_DEATHS else [[piece] for piece in batch]))
        self._news.tell()

    def _pause_s(self) -> float | None:
        """Until the next look, unless there is news."""
        now = self._clock()
        looks = [
            self.staff.look_s,
            self._queue.due_in_s(now) if self.staff.free else None,
            self._queue.overdue_in_s(now),
        ]
        return min((look for look in looks if look is not None), default=None)


def _tell_first(batch: list[Piece], could: bool) -> None:
    """Tell whoever failed at the batch before whether another could do it."""
    for piece in batch:
        if piece.second_try is not None and not piece.second_try.done():
            piece.second_try.set_result(could)
