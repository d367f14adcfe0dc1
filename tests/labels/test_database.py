"""The promises of `Database`, on both databases."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.tables import Event, Question
from tests.labels.postgresql import create_database, drop_database

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)


def ask(session: Session, id: str) -> str:
    session.add(Question(id=id, text="Do you like it?", created_at=NOW))
    return id


def ids(session: Session) -> list[str]:
    return list(session.scalars(select(Question.id).order_by(Question.id)))


def test_what_was_written_is_there_when_write_returns_and_after_opening_again(database_url: str):
    database = Database.open(database_url)
    assert asyncio.run(database.write(lambda session: ask(session, "a"))) == "a"
    assert asyncio.run(database.read(ids)) == ["a"]
    database.close()
    again = Database.open(database_url)
    assert again.read_now(ids) == ["a"]
    again.close()


def test_an_operation_that_fails_takes_back_its_own_writes_only(database: Database):
    def fail(session: Session) -> None:
        ask(session, "lost")
        session.flush()
        raise LookupError("no such thing")

    async def together():
        writes = [database.write(lambda s, n=n: ask(s, f"kept-{n}")) for n in range(5)]
        return await asyncio.gather(*writes, database.write(fail), return_exceptions=True)

    *kept, failed = asyncio.run(together())
    assert kept == [f"kept-{n}" for n in range(5)]
    assert isinstance(failed, LookupError)
    assert database.read_now(ids) == kept


def test_a_broken_constraint_comes_to_its_caller_only(database: Database):
    async def together():
        writes = [database.write(lambda session: ask(session, "same")) for _ in range(8)]
        return await asyncio.gather(*writes, return_exceptions=True)

    answers = asyncio.run(together())
    assert answers.count("same") == 1
    assert sum(isinstance(answer, IntegrityError) for answer in answers) == 7
    assert database.read_now(ids) == ["same"]


def test_times_come_back_as_aware_utc(database: Database):
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    database.write_now(
        lambda session: session.add(
            Event(topic="system", type="x", data={}, audience="viewer", at=elsewhere)
        )
    )
    at = database.read_now(lambda session: session.scalar(select(Event.at)))
    assert at == NOW
    assert at.tzinfo is UTC


def test_many_writers_on_two_hosts_count_without_a_gap(database: Database, database_url: str):
    """Each reads the number of rows and writes the next: only serial order gets it right."""
    hosts = database, Database.open(database_url)

    def count_up(session: Session) -> int:
        number = session.scalar(select(func.count()).select_from(Question)) or 0
        ask(session, f"{number:04d}")
        session.flush()
        return number

    async def together():
        return await asyncio.gather(*(hosts[n % 2].write(count_up) for n in range(40)))

    assert sorted(asyncio.run(together())) == list(range(40))
    hosts[1].close()


def test_a_row_that_another_caller_wrote_first_is_found_and_not_an_error(database: Database):
    """Look, then add what is missing: everybody else finds it."""

    def find_or_ask(session: Session) -> str:
        found = session.get(Question, "shared")
        return "found" if found else ask(session, "shared")

    async def together():
        return await asyncio.gather(*(database.write(find_or_ask) for _ in range(40)))

    assert sorted(asyncio.run(together())) == ["found"] * 39 + ["shared"]


def test_two_that_look_at_once_do_not_both_act(database: Database, database_url: str):
    """Neither writes what the other has read: no row and no key of theirs conflicts."""
    elsewhere = Database.open(database_url)
    meeting, started = threading.Barrier(2), threading.Event()

    def only_if_alone(session: Session, id: str) -> None:
        before = ids(session)
        started.set()
        with suppress(threading.BrokenBarrierError):  # SQLite has one writer: nobody comes
            meeting.wait(0.5)
        if not before:
            ask(session, id)

    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(database.write_now, lambda session: only_if_alone(session, "a"))
        assert started.wait(20)
        second = callers.submit(elsewhere.write_now, lambda session: only_if_alone(session, "b"))
        first.result()
        second.result()
    elsewhere.close()
    assert len(database.read_now(ids)) == 1


def test_what_another_host_wrote_after_the_look_is_found_at_the_second_look(postgresql_url: str):
    database, elsewhere = Database.open(postgresql_url), Database.open(postgresql_url)
    looked, written = threading.Event(), threading.Event()

    def find_or_ask(session: Session) -> str:
        found = session.get(Question, "shared")
        looked.set()
        assert written.wait(20)
        return "found" if found else ask(session, "shared")

    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(database.write_now, find_or_ask)
        assert looked.wait(20)
        elsewhere.write_now(lambda session: ask(session, "shared"))
        written.set()
        assert answer.result() == "found"
    database.close()
    elsewhere.close()


def test_readers_see_a_snapshot_that_does_not_move(database: Database):
    def twice(session: Session) -> tuple[list[str], list[str]]:
        before = ids(session)
        database.write_now(lambda other: ask(other, "meanwhile"))
        return before, ids(session)

    assert database.read_now(twice) == ([], [])
    assert database.read_now(ids) == ["meanwhile"]


def test_a_look_sees_what_is_newest_where_no_snapshot_is_free(postgresql_url: str):
    database = Database.open(postgresql_url)

    def twice(session: Session) -> tuple[list[str], list[str]]:
        before = ids(session)
        database.write_now(lambda other: ask(other, "meanwhile"))
        return before, ids(session)

    assert asyncio.run(database.look(twice)) == ([], ["meanwhile"])
    database.close()


@pytest.mark.parametrize("how", ["read_now", "look_now"])
def test_a_query_cannot_write(database: Database, how: str):
    def write(session: Session) -> None:
        ask(session, "a")
        session.flush()

    with pytest.raises(RuntimeError, match=r"give it to Database\.write"):
        getattr(database, how)(write)
    assert database.write_now(lambda session: ask(session, "b")) == "b"
    assert database.read_now(ids) == ["b"]


def test_a_url_that_promises_nothing_is_refused():
    with pytest.raises(ValueError, match="would be lost"):
        Database.open("sqlite:///:memory:")
    with pytest.raises(ValueError, match=r"mysql://ann:\*\*\*@host/x is of no kind"):
        Database.open("mysql://ann:secret@host/x")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_postgresql_that_cannot_keep_every_text_is_refused(postgresql_server: str, encoding: str):
    options = f"encoding '{encoding}' locale 'C' template template0"
    url = create_database(postgresql_server, "narrow", options)
    try:
        with pytest.raises(ValueError, match=f"narrow is in {encoding}.*createdb --encoding=UTF8"):
            Database.open(url)
    finally:
        drop_database(postgresql_server, "narrow")
