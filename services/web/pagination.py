"""Pages: an opaque cursor over (created_at, id). Rows that arrive meanwhile move no page's edge."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import Session

from services.web.problems import Problem

MAX_LIMIT = 500


@dataclass(frozen=True)
class Page:
    """What part of a list is asked for."""

    limit: int = 50
    after: tuple[datetime, str | int] | None = None
    """Time and id of the last row of the page before."""
    count: bool = False
    """Whether the whole number of rows is wanted too."""

    def fetch(
        self, session: Session, query: Select[Any], created_at: Any, id: Any, newest: bool = True
    ) -> tuple[list[Any], str | None, int | None]:
        """Rows (newest first, or oldest), the cursor after them, and the count where asked for."""
        total = None
        if self.count:
            total = session.scalar(select(func.count()).select_from(query.subquery()))
        return *self._rows(session, query, created_at, id, newest), total

    def _rows(
        self, session: Session, query: Select[Any], created_at: Any, id: Any, newest: bool
    ) -> tuple[list[Any], str | None]:
        if self.after is not None:
            time, last = self.after
            if not isinstance(last, id.type.python_type):
                raise invalid_cursor()
            beyond = created_at < time if newest else created_at > time
            tied = and_(created_at == time, id < last if newest else id > last)
            query = query.where(or_(beyond, tied))
        order = (created_at.desc(), id.desc()) if newest else (created_at, id)
        rows = list(session.scalars(query.order_by(*order).limit(self.limit + 1)))
        if len(rows) <= self.limit:
            return rows, None
        rows.pop()
        return rows, encode_cursor(getattr(rows[-1], created_at.key), getattr(rows[-1], id.key))


def encode_cursor(time: datetime, id: str | int) -> str:
    """An opaque text for the row made then."""
    return pack([time.isoformat(), id])


def pack(place: Sequence[Any]) -> str:
    """JSON as an opaque text for an address."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def unpack(text: str, num: int) -> list[Any]:
    """What `pack` was given, of `num` items; 400 where it never was."""
    try:
        found = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, binascii.Error) as error:
        raise invalid_cursor() from error
    if not isinstance(found, list) or len(found) != num:
        raise invalid_cursor()
    return found


def decode_cursor(text: str) -> tuple[datetime, str | int]:
    """What `encode_cursor` was given; 400 where it never was."""
    time, id = unpack(text, 2)
    try:
        found = datetime.fromisoformat(time)
        if found.tzinfo is None or type(id) not in (str, int):
            raise ValueError("no zone, or no id")
        return found.astimezone(UTC), id
    except (ValueError, TypeError, OverflowError) as error:  # at the ends of the calendar
        raise invalid_cursor() from error


def invalid_cursor() -> Problem:
    """400 for a cursor that this list has never given."""
    detail = "pass next_cursor of the page before as it is, or none for the first page"
    return Problem(400, "cursor-invalid", "Not a cursor of this list", detail)


def _page(
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` before")] = None,
    count: Annotated[bool, Query(description="Whether to tell `total`")] = False,
) -> Page:
    return Page(limit, decode_cursor(cursor) if cursor else None, count)


PageQuery = Annotated[Page, Depends(_page)]
"""A route's parameter: `page: PageQuery`."""
