"""Who a verdict is from: a key's or session's annotator, or an app's user behind a service key."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from services.labels.group_rows import core, vote_weight
from services.labels.store.tables import Annotator
from services.web.ids import new_id
from services.web.problems import Problem


class Person(NamedTuple):
    """An annotator, as far as a vote needs them."""

    id: str
    weight: float
    """0 below the gold bar."""


_annotators = core(Annotator)
_PEOPLE = select(Annotator.id, Annotator.external_ref, Annotator.state, vote_weight.label("weight"))
_BY_ID = _PEOPLE.where(Annotator.id == bindparam("id")).with_for_update()
_BY_REF = _PEOPLE.where(
    Annotator.key_id == bindparam("key"),
    Annotator.external_ref.in_(bindparam("refs", expanding=True)),
)


def by_id(session: Session, annotator_id: str) -> Person:
    """The active annotator of that id, their row locked: what one person does, happens in turn."""
    row = session.execute(_BY_ID, {"id": annotator_id}).first()
    if row is None:
        raise Problem(404, "not-found", "Not found", f"there is no annotator {annotator_id}")
    return _active(row)


def by_refs(session: Session, key_id: str, refs: Iterable[str], now: datetime) -> dict[str, Person]:
    """A service key's users by their names in its app; who is new becomes an annotator."""
    wanted = dict.fromkeys(refs)
    rows = session.execute(_BY_REF, {"key": key_id, "refs": [*wanted]})
    people = {row.external_ref: _active(row) for row in rows}
    new = [ref for ref in wanted if ref not in people]
    if new:
        same = {"key_id": key_id, "created_at": now}
        created = [{"id": new_id(now), "name": ref, "external_ref": ref, **same} for ref in new]
        session.execute(insert(_annotators), created)
        people |= {row["external_ref"]: Person(row["id"], 1.0) for row in created}
    return people


def _active(row: object) -> Person:
    id, _, state, weight = row  # type: ignore[misc]
    if state != "active":
        detail = f"annotator {id} is {state}; an admin can make them active again"
        raise Problem(403, "annotator-inactive", "This annotator takes no part", detail)
    return Person(id, weight)
