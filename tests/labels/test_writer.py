"""The queue before the writer: cancelled callers, too many callers, the end."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.store.writer import CAPACITY
from tests.labels.test_database import ask, ids

pytestmark = pytest.mark.integration


@contextmanager
def writer_busy(database: Database) -> Iterator[threading.Event]:
    """Until the event is set, which leaving does at the latest."""
    release = threading.Event()
    started = threading.Event()

    def hold(_session: Session) -> None:
        started.set()
        release.wait(20)

    with ThreadPoolExecutor(1) as callers:
        try:
            callers.submit(database.write_now, hold)
            assert started.wait(20)
            yield release
        finally:
            release.set()


def test_a_caller_that_gave_up_before_its_turn_has_written_nothing(database: Database):
    async def give_up(release: threading.Event):
        task = asyncio.create_task(database.write(lambda session: ask(session, "gone")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        return await database.write(lambda session: ask(session, "next"))

    with writer_busy(database) as release:
        assert asyncio.run(give_up(release)) == "next"
    assert database.read_now(ids) == ["next"]


def test_a_caller_that_gives_up_in_its_turn_disturbs_nobody(database: Database):
    started, release = threading.Event(), threading.Event()

    def slowly(session: Session) -> None:
        started.set()
        release.wait(20)
        ask(session, "slow")

    async def give_up():
        task = asyncio.create_task(database.write(slowly))
        await asyncio.to_thread(started.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()
        return await database.write(lambda session: ask(session, "next"))

    assert asyncio.run(give_up()) == "next"
    database.close()  # whatever runs is finished
    with pytest.raises(StoreUnavailable, match="closed"):
        database.write_now(ids)


def test_too_many_callers_hear_busy_and_the_others_are_served(database: Database):
    async def crowd(release: threading.Event):
        writes = [database.write(lambda _: None) for _ in range(CAPACITY + 100)]
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    with writer_busy(database) as release:
        answers = asyncio.run(crowd(release))
    refused = [answer for answer in answers if answer is not None]
    assert 90 <= len(refused) <= 101
    assert all(isinstance(answer, StoreUnavailable) for answer in refused)
    assert "busy" in str(refused[0])
    assert database.write_now(lambda session: ask(session, "later")) == "later"


def test_closing_finishes_what_waits(database_url: str):
    database = Database.open(database_url)
    with ThreadPoolExecutor(20) as callers:
        with writer_busy(database) as release:
            writes = [
                callers.submit(database.write_now, lambda session, n=n: ask(session, f"{n:02d}"))
                for n in range(20)
            ]
            while database.num_waiting < 20:
                time.sleep(0.01)
            closing = threading.Thread(target=database.close)
            closing.start()
            release.set()
        closing.join()
        kept = [write.result() for write in writes]
    again = Database.open(database_url)
    assert again.read_now(ids) == kept
    again.close()
