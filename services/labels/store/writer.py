"""Group commit: queued operations share one transaction, each in a SAVEPOINT of its own.

An answer is given only after the commit that holds it; so one flush to the disk serves many.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labels.store.faults import ConnectionLost, StoreConflict, StoreUnavailable

T = TypeVar("T")
Operation = Callable[[Session], T]

BATCH = 64
"""Operations that share a commit, at most."""
CAPACITY = 1024
"""Operations that wait, at most; beyond it callers hear "busy" instead of filling the memory."""
MODES = ("row share", "exclusive", "exclusive")
"""How the attempts of a batch share PostgreSQL with other writers, on whatever host: the lock is
taken before the snapshot, so an exclusive one sees all that it could have met."""
ORDER_LOCK = 0x7D31E7
"""Every transaction that writes holds this advisory lock until it ends, shared, so that nobody
waits: readers of events see who may yet commit. Below 2^32, so that pg_locks shows it whole in
`objid`."""
BEGIN = """BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE alembic_version IN {mode} MODE;
SELECT pg_advisory_xact_lock_shared({key})"""
"""In one turn of the server."""


@dataclass
class _Job:
    operation: Operation[Any]
    answer: Future[Any] = field(default_factory=Future)
    looked_again: bool = False


@dataclass
class _Outcome:
    result: Any = None
    error: Exception | None = None


class Writer:
    """A thread that takes operations from a queue and commits them in batches.

    One on PostgreSQL too: two of one process met at the run's row and at the groups that a claim
    looks through, and what they did again cost more than the other's commit took.
    """

    def __init__(self, engine: Engine, capacity: int = CAPACITY) -> None:
        """Over an engine whose transactions are serializable."""
        self._engine = engine
        self._has_others = engine.dialect.name != "sqlite"  # processes, on whatever host
        self._queue: queue.Queue[_Job | None] = queue.Queue()
        self._capacity = capacity
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="label-writer", daemon=True)
        self._thread.start()

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
                self._queue.put(None)
        self._thread.join()

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
        """Commit, then answer."""
        try:
            outcomes = self._commit(jobs)
        except Exception as error:  # a thread that dies would leave every caller waiting
            outcomes = [_Outcome(error=error)] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._answer(job, outcome)

    def _answer(self, job: _Job, outcome: _Outcome) -> None:
        came_second = isinstance(outcome.error, IntegrityError) and self._has_others
        if came_second and not job.looked_again:
            # What another writer wrote may be too new for our snapshot: the operation looked,
            # found nothing and was refused. A second look finds it.
            job.looked_again = True
            self._settle([job])
        elif outcome.error is None:
            job.answer.set_result(outcome.result)
        else:
            job.answer.set_exception(outcome.error)

    def _commit(self, jobs: list[_Job]) -> list[_Outcome]:
        """Beside others first; if they met, alone, which settles it."""
        met: StoreConflict | None = None
        for mode in MODES:
            try:
                with self._begin(mode) as connection:
                    # A SAVEPOINT costs PostgreSQL two turns, and one alone has nobody to protect.
                    alone = self._has_others and len(jobs) == 1
                    attempt = _attempt_alone if alone else _attempt
                    outcomes = [attempt(connection, job.operation) for job in jobs]
                    if not (alone and outcomes[0].error):
                        connection.commit()
                    return outcomes
            except StoreConflict as error:
                met = error
        raise StoreUnavailable("the label store is busy: others hold what we need") from met

    def _begin(self, mode: str) -> Connection:
        """A connection in a transaction; another one where it was lost since it was used, for then
        nothing has been done on it."""
        if not self._has_others:
            connection = self._engine.connect()
            connection.begin()
            return connection
        try:
            return self._begin_beside_others(mode)
        except ConnectionLost:
            return self._begin_beside_others(mode)

    def _begin_beside_others(self, mode: str) -> Connection:
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(BEGIN.format(mode=mode, key=ORDER_LOCK))
        except BaseException:
            connection.close()
            raise
        return connection


def _attempt(connection: Connection, operation: Operation[Any]) -> _Outcome:
    """Run it in its SAVEPOINT; an error of its own takes back its own writes and no other's."""
    return _run(connection, operation, "create_savepoint")


def _attempt_alone(connection: Connection, operation: Operation[Any]) -> _Outcome:
    """Run it in the transaction itself, which is not to be committed after an error."""
    outcome = _run(connection, operation, "rollback_only")
    driver: Any = connection.connection.driver_connection
    if outcome.error is None and driver.info.transaction_status.name == "INERROR":
        # The operation went on after a refusal: a commit would take it all back, silently.
        outcome.error = RuntimeError("PostgreSQL refused a statement, and nobody heeded it")
    return outcome


def _run(
    connection: Connection,
    operation: Operation[Any],
    mode: Literal["create_savepoint", "rollback_only"],
) -> _Outcome:
    try:
        with Session(connection, join_transaction_mode=mode, expire_on_commit=False) as session:
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
