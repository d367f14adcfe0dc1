"""Who a verdict is from: a key's or session's annotator, or an app's user behind a service key."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, core
from services.web.ids import new_id
from services.web.problems import Problem


class Person(NamedTuple):
    """An annotator, as far as a vote needs them."""

    id: str
    weight: float
    """0 below the gold bar."""


_people = core(Annotator)
_PEOPLE = select(_people.c.id, _people.c.external_ref, _people.c.state, vote_weight.label("weight"))
_BY_ID = _PEOPLE.where(_people.c.id == bindparam("id")).with_for_update()
_BY_REF = _PEOPLE.where(
    _people.c.key_id == bindparam("key"),
    _people.c.external_ref.in_(bindparam("refs", expanding=True)),
)
_INSERT = insert(_people)


def by_id(session: Session, annotator_id: str) -> Person:
    """The active annotator of that id, their row locked: what one person does, happens in turn."""
    row = session.execute(_BY_ID, {"id": annotator_id}).first()
    if row is None:
        raise Problem(404, "not-found", "Not found", f"there is no annotator {annotator_id}")
    found = _active(row)
    if isinstance(found, Problem):
        raise found
    return found


def by_refs(
    session: Session, key_id: str, refs: Iterable[str], now: datetime
) -> dict[str, Person | Problem]:
    """A service key's users by their names in its app; who is new becomes an annotator. A problem
    stands for who may not label."""
    wanted = dict.fromkeys(refs)
    rows = session.execute(_BY_REF, {"key": key_id, "refs": [*wanted]})
    people = {row.external_ref: _active(row) for row in rows}
    new = [ref for ref in wanted if ref not in people]
    if new:
        same = {"key_id": key_id, "created_at": now}
        created = [{"id": new_id(now), "name": ref, "external_ref": ref, **same} for ref in new]
        session.execute(_INSERT, created)
        people |= {row["external_ref"]: Person(row["id"], 1.0) for row in created}
    return people


def _active(row: Any) -> Person | Problem:
    if row.state != "active":
        detail = f"annotator {row.id} is {row.state}; an admin can make them active again"
        return Problem(403, "annotator-inactive", "This annotator takes no part", detail)
    return Person(row.id, row.weight)
