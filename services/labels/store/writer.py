"""Group commit: queued operations share one transaction, each in a SAVEPOINT of its own.

An answer is given only after the commit that holds it; so one flush to the disk serves many.
"""

import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labels.store.faults import StoreConflict, StoreUnavailable

T = TypeVar("T")
Operation = Callable[[Session], T]

BATCH = 64
"""Operations that share a commit, at most."""
CAPACITY = 1024
"""Operations that wait, at most; beyond it callers hear "busy" instead of filling the memory."""
ATTEMPTS = 10
"""Times that an operation gives way to other writers before its caller hears "busy"."""
PAUSE_S = 0.001
"""Before the first of them, at most; then twice as long each time."""


@dataclass
class _Job:
    operation: Operation[Any]
    answer: Future[Any] = field(default_factory=Future)


@dataclass
class _Outcome:
    result: Any = None
    error: Exception | None = None
    again: bool = False


class Writer:
    """Threads that take operations from one queue and commit them in batches."""

    def __init__(self, engine: Engine, num_threads: int, capacity: int = CAPACITY) -> None:
        """One thread where the database has one writer anyway (SQLite), a few elsewhere."""
        self._engine = engine
        self._queue: queue.Queue[_Job | None] = queue.Queue()
        self._capacity = capacity
        self._closing = threading.Lock()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"label-writer-{n}", daemon=True)
            for n in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Operations that wait."""
        return self._queue.qsize()

    def submit(self, operation: Operation[T]) -> Future[T]:
        """Queue it; the future is done once it is durable. StoreUnavailable: too many wait."""
        job = _Job(operation)
        with self._closing:
            if self._closed:
                raise StoreUnavailable("the label store is closed")
            if self.depth >= self._capacity:
                raise StoreUnavailable(f"the label store is busy: {self._capacity} writes wait")
            self._queue.put(job)
        return job.answer

    def close(self) -> None:
        """Take no more, finish what waits."""
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            jobs, last = self._more(job)
            wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            if wanted:
                self._settle(wanted)
            if last:
                return

    def _more(self, first: _Job) -> tuple[list[_Job], bool]:
        """What waits behind `first`, up to a batch; and whether the end came with it."""
        jobs = [first]
        while len(jobs) < BATCH:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, False
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _settle(self, jobs: list[_Job]) -> None:
        """Commit, then answer; where writers met, each operation goes again, and alone."""
        try:
            outcomes = self._commit(jobs)
        except StoreConflict:
            outcomes = [_Outcome(again=True)] * len(jobs)
        except Exception as error:  # a thread that dies would leave every caller waiting
            outcomes = [_Outcome(error=error)] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            final = self._alone(job) if self._is_open(outcome) else outcome
            if final.error is None:
                job.answer.set_result(final.result)
            else:
                job.answer.set_exception(final.error)

    def _is_open(self, outcome: _Outcome) -> bool:
        """Whether another thread's commit, too late for our snapshot, may have been the cause."""
        came_second = isinstance(outcome.error, IntegrityError) and len(self._threads) > 1
        return outcome.again or came_second

    def _alone(self, job: _Job) -> _Outcome:
        for attempt in range(ATTEMPTS):
            time.sleep(random.uniform(0, PAUSE_S * 2**attempt))
            try:
                return self._commit([job])[0]
            except StoreConflict:
                continue
            except Exception as error:  # as in _settle
                return _Outcome(error=error)
        busy = f"the label store is busy: {ATTEMPTS} attempts met other writers"
        return _Outcome(error=StoreUnavailable(busy))

    def _commit(self, jobs: list[_Job]) -> list[_Outcome]:
        with self._engine.begin() as connection:
            return [_attempt(connection, job.operation) for job in jobs]


def _attempt(connection: Connection, operation: Operation[Any]) -> _Outcome:
    """Run it in its SAVEPOINT; an error of its own takes back its own writes and no other's."""
    try:
        with Session(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            result = operation(session)
            session.commit()
        outcome = _Outcome(result)
    except (StoreUnavailable, StoreConflict):
        raise  # the whole transaction is lost
    except Exception as error:  # whatever it is, it is the caller's
        outcome = _Outcome(error=error)
    if connection.invalidated:  # the operation swallowed the store's fault
        raise StoreUnavailable("the label store became unavailable within a transaction")
    return outcome
