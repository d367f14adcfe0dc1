"""The label service's database: durable writes, snapshot reads, on SQLite and PostgreSQL alike.

An operation may believe that it runs alone: SQLite has one writer, PostgreSQL runs SERIALIZABLE
and conflicts are run again. So it must be safe to repeat: it touches its session and nothing else.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

from services.labels.store import faults
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
        self._writing, self._reading = writing, reading
        self._writer = Writer(writing)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="label-reader")

    @classmethod
    def open(cls, url: str) -> Self:
        """Open `sqlite:///path` or `postgresql+psycopg://...`, its tables brought up to date."""
        address = make_url(url)
        if address.drivername == "sqlite":
            writing, reading = _open_sqlite(address)
        elif address.drivername == "postgresql+psycopg":
            writing, reading = _open_postgresql(address)
        else:
            raise ValueError(
                f"database {address.render_as_string()} is of no kind that we keep labels in; "
                "use sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME"
            )
        try:
            upgrade(writing)
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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self.read_now, query)

    def write_now(self, operation: Operation[T]) -> T:
        """`write` for a caller without an event loop."""
        return self._writer.submit(operation).result()

    def read_now(self, query: Operation[T]) -> T:
        """`read` for a caller without an event loop."""
        with Session(self._reading, expire_on_commit=False) as session:
            return query(session)

    def close(self) -> None:
        """Finish what waits, then let go of the database."""
        self._writer.close()
        self._readers.shutdown()
        self._reading.dispose()
        self._writing.dispose()


def _open_sqlite(address: URL) -> tuple[Engine, Engine]:
    if address.database in (None, "", ":memory:"):
        raise ValueError("labels in memory would be lost; give a file: sqlite:///PATH")
    Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
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
    options = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_SETTINGS.items())
    alive = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    engine = create_engine(
        address,
        isolation_level="SERIALIZABLE",
        pool_size=READERS + 1,  # and the writer
        max_overflow=1,
        pool_pre_ping=True,
        hide_parameters=True,  # errors are logged, and secrets are not
        connect_args={"connect_timeout": 5, "options": options, **alive},
    )
    event.listen(engine, "handle_error", faults.translate)
    reading = engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True, snapshot=True
    )
    return engine, reading
