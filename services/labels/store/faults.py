"""What a database's errors mean to us: the store is away, two writers met, or a mistake of ours."""

import sqlite3

from sqlalchemy import ExceptionContext
from sqlalchemy.exc import OperationalError

AWAY = {
    sqlite3.SQLITE_BUSY: "another process holds the database for longer than we wait",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk gave an error",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is no database",
    "08": "the connection to PostgreSQL is lost",
    "25006": "the database is read-only",
    "25P03": "PostgreSQL ended a transaction that stood still",
    "53": "PostgreSQL is out of disk, memory or connections",
    "57P": "PostgreSQL is going down or starting",
    "58": "PostgreSQL's system gave an error",
}
"""Reasons by SQLite's primary result code, and by the beginning of PostgreSQL's SQLSTATE."""
CONFLICTS = ("40001", "40P01", "55P03")
"""Serialization failure, deadlock, a lock that did not come in time."""
LOST = ("08", "57P")
READ_ONLY = (sqlite3.SQLITE_READONLY, "25006")


class StoreUnavailable(RuntimeError):  # noqa: N818 - a state of the store, which passes
    """Nothing was written, or nobody knows: ask again later, with the same idempotency key."""


class StoreMissing(StoreUnavailable):
    """Nobody has made one there."""

    def __init__(self) -> None:
        super().__init__("the label store is not there")


class ConnectionLost(StoreUnavailable):
    """PostgreSQL hung up, now or since it was last asked; it may take a new connection."""


class StoreConflict(RuntimeError):  # noqa: N818 - likewise
    """Two writers met and this one gave way; the writer runs its operations again."""


def translate(context: ExceptionContext) -> None:
    """Engine event `handle_error`: raise our error where the fault is the store's, not ours."""
    error = context.original_exception
    code = _code(context)
    if code in CONFLICTS:
        raise StoreConflict(str(error)) from error
    if code in READ_ONLY and _is_reading(context):
        raise RuntimeError("a query tried to write; give it to Database.write") from error
    reason = _reason(code)
    if reason is not None:
        is_lost = str(code).startswith(LOST)
        # SQLite may have rolled back by itself: whatever came next would commit on its own. A lost
        # connection is seldom the only one.
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, is_lost
        kind = ConnectionLost if is_lost else StoreUnavailable
        raise kind(f"the label store is unavailable: {reason} ({error})") from error


def _code(context: ExceptionContext) -> int | str:
    """SQLite's primary result code or PostgreSQL's SQLSTATE; 0 where there is neither."""
    error = context.original_exception
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF
    # psycopg gives no state where there is no server to give one.
    unreachable = isinstance(context.sqlalchemy_exception, OperationalError)
    return getattr(error, "sqlstate", None) or ("08" if unreachable else 0)


def _is_reading(context: ExceptionContext) -> bool:
    connection = context.connection
    return connection is not None and "reading" in connection.get_execution_options()


def _reason(code: int | str) -> str | None:
    if isinstance(code, int):
        return AWAY.get(code)
    return next((AWAY[code[:n]] for n in (5, 3, 2) if code[:n] in AWAY), None)
