"""What a database's errors mean to us: the store is away, two writers met, or a mistake of ours."""

import sqlite3

from sqlalchemy import ExceptionContext
from sqlalchemy.exc import OperationalError

SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY: "another process holds the database for longer than we wait",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_IOERR: "the disk gave an error",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_NOTADB: "the file is no database",
}
POSTGRESQL_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
POSTGRESQL_AWAY = ("08", "25006", "53", "57P", "58")
"""Connection lost, read-only, out of disk or memory, shutting down, system error."""


class StoreUnavailable(RuntimeError):  # noqa: N818 - a state of the store, which passes
    """Nothing was written, or nobody knows: ask again later, with the same idempotency key."""


class StoreConflict(RuntimeError):  # noqa: N818 - likewise
    """Two writers met and this one gave way; the writer runs its operations again."""


def translate(context: ExceptionContext) -> None:
    """Engine event `handle_error`: raise our error where the fault is the store's, not ours."""
    error = context.original_exception
    if isinstance(error, sqlite3.Error):
        reason = SQLITE_AWAY.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    elif hasattr(error, "sqlstate"):  # psycopg's, which is there only where it is used
        reason = _of_postgresql(context)
    else:
        reason = None
    if reason is not None:
        # SQLite may have rolled back by itself: whatever came next would commit on its own.
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
        raise StoreUnavailable(f"the label store is unavailable: {reason} ({error})") from error


def _of_postgresql(context: ExceptionContext) -> str | None:
    error = context.original_exception
    state = getattr(error, "sqlstate", None)
    if state is None:
        lost = isinstance(context.sqlalchemy_exception, OperationalError)
        return "no connection to PostgreSQL" if lost else None
    if state in POSTGRESQL_CONFLICTS:
        raise StoreConflict(str(error)) from error
    return f"PostgreSQL says {state}" if state.startswith(POSTGRESQL_AWAY) else None
