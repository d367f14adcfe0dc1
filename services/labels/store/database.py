"""The label service's database: durable writes, snapshot reads, on SQLite and PostgreSQL alike.

An operation may believe that it runs alone: SQLite has one writer, PostgreSQL runs SERIALIZABLE
and conflicts are run again. So it must be safe to repeat: it touches its session and nothing else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from services.labels.store import faults
from services.labels.store.faults import ConnectionLost
from services.labels.store.migrations.upgrade import upgrade
from services.labels.store.writer import Operation, Writer

T = TypeVar("T")

READERS = 8
"""Queries that run at a time."""
POSTGRESQL_SETTINGS = {
    "timezone": "UTC",
    "synchronous_commit": "on",  # a commit is on the disk, whatever the server's habit
    "lock_timeout": 5000,  # ms; a host that hangs must not hang the others
    "idle_in_transaction_session_timeout": 60000,
}
SQLITE_SETTINGS = {
    "busy_timeout": 5000,  # ms that we wait for another process, such as a backup
    "journal_mode": "WAL",  # readers go on while the writer writes
    "synchronous": "FULL",  # a commit is on the disk, not on its way there
    "fullfsync": "ON",  # macOS flushes its disks only when asked in this way
    "foreign_keys": "ON",
}


class Database:
    """One open database; every part of the service shares it."""

    def __init__(self, writing: Engine, reading: Engine) -> None:
        """Over two engines of one database; people call `open`."""
        self._writing = writing
        self._reading = reading.execution_options(reading=True, snapshot=True)
        self._looking = reading.execution_options(reading=True)
        self._writer = Writer(writing)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="label-reader")

    @classmethod
    def open(cls, url: str, make: bool = True) -> Self:
        """Open `sqlite:///path` or `postgresql+psycopg://...`, its tables brought up to date;
        StoreMissing where there are none, unless they may be made."""
        address = make_url(url)
        if address.drivername == "sqlite":
            writing, reading = _open_sqlite(address, make)
        elif address.drivername == "postgresql+psycopg":
            writing, reading = _open_postgresql(address)
        else:
            raise ValueError(
                f"database {address.render_as_string()} is of no kind that we keep labels in; "
                "use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME"
            )
        try:
            upgrade(writing, make)
        except BaseException:
            writing.dispose()
            raise
        return cls(writing, reading)

    @property
    def num_waiting(self) -> int:
        """Writes that wait for their turn."""
        return self._writer.depth

    async def write(self, operation: Operation[T]) -> T:
        """Run `operation` in a transaction; what it returns is on the disk when it returns.

        Its exception takes back its own writes and comes here; StoreUnavailable says that the
        store is full, read-only, away or busy. A caller that is cancelled may have written.
        """
        return await asyncio.wrap_future(self._writer.submit(operation))

    async def read(self, query: Operation[T]) -> T:
        """Run `query` on a snapshot of what is committed; it cannot write."""
        return await self._in_thread(self.read_now, query)

    async def look(self, query: Operation[T]) -> T:
        """`read` where one statement is enough, or each may see what is newest: PostgreSQL then
        has no transaction to begin and to end."""
        return await self._in_thread(self.look_now, query)

    def write_now(self, operation: Operation[T]) -> T:
        """`write` for a caller without an event loop."""
        return self._writer.submit(operation).result()

    def read_now(self, query: Operation[T]) -> T:
        """`read` for a caller without an event loop."""
        return _query(self._reading, query)

    def look_now(self, query: Operation[T]) -> T:
        """`look` for a caller without an event loop."""
        return _query(self._looking, query)

    def close(self) -> None:
        """Finish what waits, then let go of the database."""
        self._writer.close()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()

    async def _in_thread(self, run: Callable[[Operation[T]], T], query: Operation[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, run, query)


def _query(engine: Engine, query: Operation[T]) -> T:
    """Asked once more where the connection was lost, perhaps long ago: a query changes nothing."""

    def ask() -> T:
        with Session(engine, expire_on_commit=False) as session:
            found = query(session)
            session.commit()
            return found

    try:
        return ask()
    except ConnectionLost:
        return ask()


def _open_sqlite(address: URL, make: bool) -> tuple[Engine, Engine]:
    if address.database in (None, "", ":memory:"):
        raise ValueError("labels in memory would be lost; give a file: sqlite:///PATH")
    if not make and not Path(str(address.database)).exists():
        raise faults.StoreMissing
    try:
        Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise faults.StoreUnavailable(f"the label store has no folder: {error}") from error
    writing = _sqlite_engine(address, "BEGIN IMMEDIATE", SQLITE_SETTINGS)
    reading = _sqlite_engine(address, "BEGIN", SQLITE_SETTINGS | {"query_only": "ON"})
    return writing, reading.execution_options(snapshot=True)


def _sqlite_engine(address: URL, begin: str, settings: dict[str, Any]) -> Engine:
    engine = create_engine(address, pool_size=READERS, max_overflow=1, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin ourselves
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name}={value}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "handle_error", faults.translate)
    return engine


def _open_postgresql(address: URL) -> tuple[Engine, Engine]:
    # The writer keeps one connection, whose statements stay prepared.
    writing = _postgresql_engine(address, 1, POSTGRESQL_SETTINGS)
    reading = _postgresql_engine(
        address, READERS, POSTGRESQL_SETTINGS | {"default_transaction_read_only": "on"}
    )

    @event.listens_for(reading, "begin")
    def start(connection: Connection) -> None:
        if "snapshot" in connection.get_execution_options():
            connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ")

    return writing.execution_options(ordered=True), reading


def _postgresql_engine(address: URL, pool_size: int, settings: dict[str, Any]) -> Engine:
    """Its connections begin nothing by themselves: each turn of the server costs, and who begins
    can say more with it."""
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    engine = create_engine(
        address,
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=1,
        hide_parameters=True,  # errors are logged, and secrets are not
        connect_args={
            "connect_timeout": 5,
            "client_encoding": "utf8",
            "options": options,
            **alive,
        },
    )
    event.listen(engine, "connect", _require_utf8)
    event.listen(engine, "handle_error", faults.translate)
    return engine


def _require_utf8(connection: Any, _record: Any) -> None:
    """Prompts and notes are in every script; any other encoding refuses some of them, or none."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        name = connection.info.dbname
        connection.close()
        raise ValueError(
            f"the PostgreSQL database {name} is in {encoding}, which cannot keep "
            "every text; labels need UTF8: createdb --encoding=UTF8 --template=template0 NAME"
        )
