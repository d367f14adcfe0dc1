"""Labels: written once, amended by revision, never overwritten.

One path for a single label, a batch and a submitted group: lock the groups, read their votes,
insert what is new, settle every group. A handful of statements, however many labels there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from services.labels import gold
from services.labels.aggregation import settle
from services.labels.events import record_events
from services.labels.group_rows import LoadedGroup, Vote, groups_by_image
from services.labels.people import Person
from services.labels.store.many import insert_many
from services.labels.store.tables import Label, core
from services.web.ids import new_id
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.settings import Settings

_labels = core(Label)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says of an image."""

    image_id: str
    person: Person
    value: str
    """like, dislike, unsure or skip."""
    note: str | None = None
    flags: Sequence[str] = ()
    latency_ms: int | None = None
    shown_at: datetime | None = None
    client_ref: str | None = None
    position: int | None = None
    """Place on the page, where a lease tells it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one verdict."""

    status: int
    """201 new, 200 there already, else the problem's."""
    label: Mapping[str, Any] | None = None
    """The label's columns."""
    problem: Problem | None = None


def record(
    session: Session,
    verdicts: Sequence[Verdict],
    source: str,
    now: datetime,
    settings: "Settings",
    assignment_id: str | None = None,
) -> list[Recorded]:
    """Store what is new, with the aggregates and messages that follow; an answer a verdict, in
    order. Who wants all or nothing raises an answer's problem within the transaction."""
    people = {verdict.person.id for verdict in verdicts}
    groups = groups_by_image(session, {verdict.image_id for verdict in verdicts}, people)
    group_of = {image.id: group for group in groups.values() for image in group.images}
    results: list[Recorded] = []
    new: dict[str, list[dict[str, Any]]] = {}
    for verdict in verdicts:
        group = group_of.get(verdict.image_id)
        result = _take(group, verdict)
        if result is None:
            assert group is not None
            label = _label(group, verdict, source, assignment_id, now)
            group.votes[verdict.image_id, verdict.person.id] = Vote(label, verdict.person.weight)
            new.setdefault(group.id, []).append(label)
            result = Recorded(201, label)
        results.append(result)
    if new:
        _store(session, [label for labels in new.values() for label in labels])
        _settle(session, [groups[id] for id in new], new, now, settings)
    return results


def _take(group: LoadedGroup | None, verdict: Verdict) -> Recorded | None:
    """The answer where there is nothing to store."""
    if group is None:
        detail = f"there is no image {verdict.image_id} in any group; see GET /groups/<group_id>"
        return Recorded(404, problem=Problem(404, "image-unknown", "Unknown image", detail))
    vote = group.votes.get((verdict.image_id, verdict.person.id))
    if vote is None:
        return None
    label = vote.label
    if label["value"] == verdict.value and label["retracted_at"] is None:
        return Recorded(200, label)
    present = "it was retracted" if label["retracted_at"] else f"it says {label['value']}"
    detail = f"this person's label {label['id']} is there and {present}; PATCH it to amend it"
    return Recorded(409, label, Problem(409, "label-exists", "The label exists", detail))


def _label(
    group: LoadedGroup, verdict: Verdict, source: str, assignment_id: str | None, now: datetime
) -> dict[str, Any]:
    row = group.row
    return {
        "id": new_id(now),
        "image_id": verdict.image_id,
        "group_id": row.id,
        "run_id": row.run_id,
        "question_id": row.question_id,
        "annotator_id": verdict.person.id,
        "assignment_id": assignment_id,
        "guidelines_version": row.guidelines_version,
        "value": verdict.value,
        "note": verdict.note,
        "flags": [*verdict.flags],
        "position": verdict.position,
        "latency_ms": verdict.latency_ms,
        "shown_at": verdict.shown_at,
        "received_at": now,
        "source": source,
        "client_ref": verdict.client_ref,
        "policy_version": row.policy_version,
        "is_gold": row.is_gold,
        "retracted_at": None,
        "revision": 1,
    }


def _store(session: Session, labels: list[dict[str, Any]]) -> None:
    """Insert them; each learns its number in the sequence."""
    numbers = {row.id: row.seq for row in insert_many(session, _labels, labels, ("id", "seq"))}
    for label in labels:
        label["seq"] = numbers[label["id"]]


def _settle(
    session: Session,
    groups: Sequence[LoadedGroup],
    new: Mapping[str, list[dict[str, Any]]],
    now: datetime,
    settings: "Settings",
) -> None:
    newest = max(label["seq"] for labels in new.values() for label in labels)
    states = settle(session, groups, newest, now, settings)
    events: list[tuple[str, dict[str, Any]]] = []
    for group in groups:
        labels = new[group.id]
        if group.row.is_gold:
            gold.answered(session, group, labels, now, settings)
        told = {"group_id": group.id, "run_id": group.row.run_id, "state": states[group.id]}
        events.append(("labels.received", {**told, "num_labels": len(labels)}))
    record_events(session, "labels", events, now)
