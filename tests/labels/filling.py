"""One row in every table, whatever columns it has: for tests of migrations and of backups."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, insert
from sqlalchemy.orm import Session

from services.labels.store.tables import Table, UtcDateTime

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXAMPLES: dict[type, Any] = {
    str: "x",
    int: 1,
    float: 0.5,
    bool: True,
    bytes: b"x",
    object: {"a": 1},  # JSON
}


def fill(session: Session) -> None:
    """A row in each; references hold, since every key is the same."""
    for table in Table.metadata.sorted_tables:
        session.execute(insert(table).values({c.name: _example(c) for c in table.columns}))


def _example(column: Column[Any]) -> Any:
    return NOW if isinstance(column.type, UtcDateTime) else EXAMPLES[column.type.python_type]
