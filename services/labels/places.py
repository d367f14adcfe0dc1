"""Which images of a group still lack answers, and whose: an image is a place for `overlap` people.

A place is taken by an answer of somebody whose votes count, and by a live lease that asks for one.
So an image that has its answers is asked of nobody, and what a lease has left behind when it ends
is asked of the next.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, bindparam, select
from sqlalchemy.orm import Session

from services.labels.group_rows import vote_weight
from services.labels.store.tables import Annotator, Assignment, GroupImage, Label, core

_annotators, _assignments, _images, _labels = (
    core(mapped) for mapped in (Annotator, Assignment, GroupImage, Label)
)
is_live: ColumnElement[bool] = and_(
    _assignments.c.state == "live", _assignments.c.expires_at > bindparam("now")
)
"""A lease that has run out is no lease, whether anybody has noticed or not."""
_ANSWERS = (
    select(_images.c.id, _labels.c.annotator_id, vote_weight.label("weight"))
    .outerjoin(_labels, _labels.c.image_id == _images.c.id)
    .outerjoin(_annotators, _annotators.c.id == _labels.c.annotator_id)
    .where(_images.c.group_id == bindparam("group"))
)
_ASKED = select(_assignments.c.annotator_id, _assignments.c.positions).where(
    _assignments.c.group_id == bindparam("group"), _assignments.c.id != bindparam("but"), is_live
)


@dataclass(frozen=True)
class Places:
    """A group's images; certain only for who holds its row."""

    num_taken: Counter[str]
    """By image id, those of nobody too."""
    answers: frozenset[tuple[str, str | None]]
    """(image id, annotator id)."""

    def unanswered(self, image_ids: Iterable[str], annotator_id: str) -> list[str]:
        """Those of these images that a person has not answered."""
        return [id for id in image_ids if (id, annotator_id) not in self.answers]

    def wanted(self, annotator_id: str, overlap: int) -> list[str]:
        """The images that a person may be asked for."""
        free = (id for id, num_taken in self.num_taken.items() if num_taken < overlap)
        return self.unanswered(free, annotator_id)


def places_of(session: Session, group_id: str, now: datetime, but: str = "") -> Places:
    """What is taken of an ordinary group, the lease with the id `but` left out."""
    rows = session.execute(_ANSWERS, {"group": group_id}).all()
    answers = frozenset((row.id, row.annotator_id) for row in rows)
    taken = Counter({row.id: 0 for row in rows})
    taken.update(row.id for row in rows if row.weight)
    for lease in session.execute(_ASKED, {"group": group_id, "but": but, "now": now}):
        taken.update(id for id in lease.positions if (id, lease.annotator_id) not in answers)
    return Places(taken, answers)
