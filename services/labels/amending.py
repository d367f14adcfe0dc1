"""Amended and retracted labels: what they said before is kept as a revision."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, false, insert, select, true, update
from sqlalchemy.orm import Session

from services.labels import gold
from services.labels.aggregation import settle
from services.labels.events import record_event
from services.labels.group_rows import LoadedGroup, Vote, groups_by_image
from services.labels.store.tables import Annotator, Label, LabelRevision, core
from services.web.auth import Principal
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.settings import Settings

_labels = core(Label)


@dataclass(frozen=True, slots=True)
class OpenLabel:
    """A label whose group is locked, so that it can be changed."""

    group: LoadedGroup
    vote: Vote

    @property
    def label(self) -> Mapping[str, Any]:
        """Its columns, as they stand."""
        return self.vote.label


def seen_by(principal: Principal) -> ColumnElement[bool]:
    """Whose labels somebody may know of: an admin all, a person their own, an app its users'."""
    if principal.role == "admin":
        return true()
    if principal.annotator_id is not None:
        return Label.annotator_id == principal.annotator_id
    if principal.role == "service":
        own = select(Annotator.id).where(Annotator.key_id == principal.key_id)
        return Label.annotator_id.in_(own)
    return false()


def find(session: Session, label_id: str, principal: Principal) -> Label:
    """404 where there is no such label, or it is another's."""
    query = select(Label).where(Label.id == label_id, seen_by(principal))
    label = session.scalar(query)
    if label is None:
        raise Problem(404, "not-found", "Not found", f"there is no label {label_id} of yours")
    return label


def open_label(session: Session, label_id: str, principal: Principal) -> OpenLabel:
    """Lock a label for `amend`. 409 `group-consumed` where only an admin may still do so."""
    found = find(session, label_id, principal)
    key = (found.image_id, found.annotator_id)
    (group,) = groups_by_image(session, [found.image_id], [found.annotator_id]).values()
    if group.row.state == "consumed" and principal.role != "admin":
        detail = f"its group has been trained on; ask an admin to amend label {label_id}"
        raise Problem(409, "group-consumed", "The group is consumed", detail)
    return OpenLabel(group, group.votes[key])


def amend(
    session: Session,
    opened: OpenLabel,
    changes: Mapping[str, Any],
    actor: str,
    now: datetime,
    settings: "Settings",
) -> Mapping[str, Any]:
    """Change `value`, `note`, `flags` or `retracted_at`; the label as it is then."""
    before, group = opened.label, opened.group
    if all(before[name] == value for name, value in changes.items()):
        return before
    kept = ("value", "note", "retracted_at", "revision")
    session.execute(
        insert(core(LabelRevision)).values(
            label_id=before["id"], actor=actor, at=now, **{name: before[name] for name in kept}
        )
    )
    after = {**before, **changes, "revision": before["revision"] + 1}
    written = {name: after[name] for name in (*changes, "revision")}
    session.execute(update(_labels).where(_labels.c.seq == before["seq"]).values(written))
    group.votes[before["image_id"], before["annotator_id"]] = Vote(after, opened.vote.weight)
    if group.row.is_gold:
        _count_gold(session, group, before, after, now, settings)
    else:
        settle(session, [group], 0, now, settings)
    told = {"group_id": group.id, "run_id": group.row.run_id, "revision": after["revision"]}
    type = "label.retracted" if after["retracted_at"] else "label.amended"
    record_event(session, "labels", type, told, now)
    return after


def _count_gold(
    session: Session,
    group: LoadedGroup,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    now: datetime,
    settings: "Settings",
) -> None:
    """A gold answer counts as it stands."""
    answers = {image.id: image.gold_answer for image in group.images}
    right, told = 0, 0
    for label, sign in ((before, -1), (after, 1)):
        value = None if label["retracted_at"] else label["value"]
        worth = gold.worth(value, answers[label["image_id"]])
        right, told = right + sign * worth[0], told + sign * worth[1]
    gold.count(session, before["annotator_id"], right, told, now, settings)
