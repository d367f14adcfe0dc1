"""Many rows inserted by one statement, whose text is the same however many they are."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Executable, Row, Table, bindparam, cast, column, func, insert, select
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Session


def insert_many(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    returning: tuple[str, ...],
) -> Sequence[Row[Any]]:
    """Insert rows, which have the same columns; the columns `returning` of each, in any order.

    PostgreSQL gets them as one JSON text. With a parameter for each value it took longer to read
    and to plan 32 labels than to store them, and could prepare nothing.
    """
    if session.get_bind().dialect.name == "postgresql":
        text = json.dumps(rows, default=_as_text)
        return session.execute(_from_json(table, tuple(rows[0]), returning), {"rows": text}).all()
    return session.execute(_of_values(table, returning), rows).all()


@cache
def _of_values(table: Table, returning: tuple[str, ...]) -> Executable:
    return insert(table).returning(*(table.c[name] for name in returning))


@cache
def _from_json(table: Table, names: tuple[str, ...], returning: tuple[str, ...]) -> Executable:
    columns = [column(name, table.c[name].type) for name in names]
    array = func.json_to_recordset(cast(bindparam("rows"), JSON))
    given = array.table_valued(*columns).render_derived(name="given", with_types=True)
    chosen = select(*(given.c[name] for name in names))
    made = insert(table).from_select(names, chosen)
    return made.returning(*(table.c[name] for name in returning))


def _as_text(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise TypeError(f"{value!r} has no form in JSON that the database would read")
