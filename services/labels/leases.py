"""Leases: what a prompt group lacks, to one person for a while, proven by a token (a fence).

    live -> submitted | released | skipped | expired | revoked
The token is fresh at every grant. Work that comes when the lease is lost is taken while none of its
images has been answered by, or is asked of, as many as were wanted; else it goes back to its sender
(409 `lease-lost`), never silently away.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from services.labels.aggregation import give_up
from services.labels.audit import record_audit
from services.labels.claiming import Offer, draw, next_group
from services.labels.events import record_event
from services.labels.labelling import Recorded, Verdict, record
from services.labels.people import by_id
from services.labels.places import places_of
from services.labels.store.tables import Assignment, Group, Label, core
from services.web.auth import Principal
from services.web.ids import new_id
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.settings import Settings


_groups, _leases = (core(mapped) for mapped in (Group, Assignment))
_ANY = (
    select(Assignment)
    .join(_groups, _groups.c.id == Assignment.group_id)
    .where(Assignment.id == bindparam("id"))
    .with_for_update(of=_groups)
    .execution_options(populate_existing=True)
)
_OWN = _ANY.where(Assignment.annotator_id == bindparam("me"))
_LIVE_OF = (
    select(Assignment)
    .where(Assignment.annotator_id == bindparam("me"), Assignment.state == "live")
    .order_by(Assignment.id)
)
_END_OVERDUE = (
    update(_leases)
    .where(_leases.c.group_id == bindparam("group"), _leases.c.id != bindparam("but"))
    .where(_leases.c.state == "live", _leases.c.expires_at <= bindparam("now"))
    .values(state="expired", finished_at=bindparam("now"))
)


class LeaseLost(Problem):
    """409, with the work that was not taken."""

    def __init__(self, assignment: Assignment, why: str, work: Sequence[Any] = ()) -> None:
        detail = f"assignment {assignment.id} {why}; claim again with POST /assignments"
        super().__init__(409, "lease-lost", "The lease is lost", detail)
        self.work = tuple(work)


def claim(
    session: Session,
    annotator_id: str,
    question_id: str | None,
    now: datetime,
    settings: "Settings",
    holding: Collection[str] = (),
) -> tuple[Assignment, bool] | None:
    """Lease a group: (lease, whether it is new). A live lease of this person comes again, unless
    its id is in `holding`: then they want one more. None where there is nothing to give."""
    by_id(session, annotator_id)
    live = [lease for lease in _leases_of(session, annotator_id) if lease.expires_at > now]
    for lease in live:
        if lease.id not in holding:
            return lease, False
    if len(live) >= settings.max_leases:
        return None
    id = new_id(now)
    offer = next_group(session, annotator_id, question_id, id, now, settings)
    if offer is None:
        return None
    return _grant(session, id, offer, annotator_id, now, settings), True


def own(session: Session, assignment_id: str, annotator_id: str | None) -> Assignment:
    """404 where it is not theirs; else the lease, with the group's row locked."""
    lease = session.scalar(_OWN, {"id": assignment_id, "me": annotator_id})
    if lease is None:
        raise Problem(404, "not-found", "Not found", f"you have no assignment {assignment_id}")
    return lease


def heartbeat(
    session: Session, assignment: Assignment, token: str, now: datetime, settings: "Settings"
) -> Assignment:
    """Prolong a live lease from now on, within `lease_max_seconds` of its grant."""
    if token != assignment.token or not is_live(assignment, now):
        raise LeaseLost(assignment, _why(assignment, token))
    last = assignment.granted_at + timedelta(seconds=settings.lease_max_seconds)
    wanted = now + timedelta(seconds=settings.lease_seconds)
    assignment.expires_at = max(assignment.expires_at, min(wanted, last))
    session.flush()
    return assignment


def submit(
    session: Session,
    assignment: Assignment,
    token: str,
    verdicts: Sequence[Verdict],
    final: bool,
    now: datetime,
    settings: "Settings",
) -> list[Recorded]:
    """Store verdicts on leased images; `final` ends the lease and wants an answer on every one.
    All are stored or none."""
    if not secrets.compare_digest(token, assignment.token):
        raise LeaseLost(assignment, _why(assignment, token), verdicts)
    for verdict in verdicts:
        if verdict.image_id not in assignment.positions:
            detail = f"image {verdict.image_id} is not of assignment {assignment.id}"
            raise Problem(422, "image-unknown", "Unknown image", detail)
    sent = {verdict.image_id for verdict in verdicts}
    is_over = assignment.state != "submitted" and not is_live(assignment, now)
    # A part that is stored and comes again, since its answer was lost, takes no place.
    if is_over and (final or not sent <= _answered(session, assignment)):
        _reenter(session, assignment, verdicts, now, settings)
    if final and assignment.state != "submitted":
        assignment.state, assignment.finished_at = "submitted", now
        session.flush()
    placed = [replace(v, position=assignment.positions.index(v.image_id)) for v in verdicts]
    recorded = record(session, placed, "web", now, settings, assignment.id)
    for result in recorded:
        if result.problem is not None:
            raise result.problem
    if final:
        _check_complete(session, assignment, sent)
    else:
        assignment.num_unanswered -= sum(result.status == 201 for result in recorded)
        session.flush()
    return recorded


def release(
    session: Session,
    assignment: Assignment,
    reason: str | None,
    now: datetime,
    settings: "Settings",
) -> None:
    """Give a group back, or skip it for good with a `reason`; `max_skips` of them retire it."""
    wanted = "skipped" if reason else "released"
    if assignment.state == wanted or (wanted == "released" and not is_live(assignment, now)):
        return
    _check_not_submitted(assignment)
    assignment.state, assignment.reason, assignment.finished_at = wanted, reason, now
    session.flush()
    if wanted == "skipped":
        _count_skip(session, assignment.group_id, now, settings)


def of_groups(session: Session, group_ids: Collection[str]) -> list[Assignment]:
    """Every lease that people had of these groups, the first granted first."""
    query = select(Assignment).where(Assignment.group_id.in_(group_ids))
    return list(session.scalars(query.order_by(Assignment.granted_at, Assignment.id)))


def revoke(session: Session, assignment_id: str, now: datetime, by: Principal | str) -> Assignment:
    """Take a live lease back, whoever holds it; the group goes to others, and never again to them.
    What they send all the same is late work. A lease that is over otherwise stays as it is."""
    lease = session.scalar(_ANY, {"id": assignment_id})
    if lease is None:
        raise Problem(404, "not-found", "Not found", f"there is no assignment {assignment_id}")
    _check_not_submitted(lease)
    if lease.state != "live":
        return lease
    before = {"state": lease.state, "expires_at": lease.expires_at}
    lease.state, lease.finished_at = "revoked", now
    session.flush()
    record_audit(session, by, "lease.revoke", lease.id, before, {"state": lease.state}, now)
    # Its holder hears it too, and must not learn which group it was.
    told = {"assignment_id": lease.id, "annotator_id": lease.annotator_id}
    audience = f"annotator:{lease.annotator_id}"
    record_event(session, "annotators", "lease.revoked", told, now, audience)
    return lease


def expire(session: Session, now: datetime) -> int:
    """Write down which leases have run out; how many there were."""
    leases = core(Assignment)
    over = (leases.c.state == "live", leases.c.expires_at <= now)
    ended = update(leases).where(*over).values(state="expired", finished_at=now)
    return session.execute(ended).rowcount  # type: ignore[attr-defined]


def is_live(assignment: Assignment, now: datetime) -> bool:
    """Up to, but not at, its end."""
    return assignment.state == "live" and assignment.expires_at > now


def _leases_of(session: Session, annotator_id: str) -> Sequence[Assignment]:
    return session.scalars(_LIVE_OF, {"me": annotator_id}).all()


def _grant(
    session: Session,
    id: str,
    offer: Offer,
    annotator_id: str,
    now: datetime,
    settings: "Settings",
) -> Assignment:
    """The lease of images that are free, in an order of its own."""
    _end_overdue(session, offer.group_id, now)
    lease = Assignment(
        id=id,
        group_id=offer.group_id,
        annotator_id=annotator_id,
        state="live",
        token=secrets.token_urlsafe(16),
        positions=sorted(offer.image_ids, key=lambda image: draw("position", id, image)),
        num_unanswered=len(offer.image_ids),
        granted_at=now,
        expires_at=now + timedelta(seconds=settings.lease_seconds),
    )
    session.add(lease)
    session.flush()
    return lease


def _reenter(
    session: Session,
    assignment: Assignment,
    verdicts: Sequence[Verdict],
    now: datetime,
    settings: "Settings",
) -> None:
    """Take the images again where nobody else has them. The person's own later lease gives way."""
    group = session.get_one(Group, assignment.group_id)
    leases = core(Assignment)
    later = (
        leases.c.id != assignment.id,
        leases.c.group_id == group.id,
        leases.c.annotator_id == assignment.annotator_id,
        leases.c.state == "live",
    )
    session.execute(update(leases).where(*later).values(state="released", finished_at=now))
    _end_overdue(session, group.id, now, but=assignment.id)
    if not group.is_gold:
        places = places_of(session, group.id, now, but=assignment.id)
        left = places.unanswered(assignment.positions, assignment.annotator_id)
        if not {*left} <= {*places.wanted(assignment.annotator_id, group.overlap)}:
            raise LeaseLost(assignment, _why(assignment, assignment.token), verdicts)
        assignment.num_unanswered = len(left)
    assignment.state, assignment.finished_at = "live", None
    assignment.expires_at = now + timedelta(seconds=settings.lease_seconds)
    session.flush()


def _end_overdue(session: Session, group_id: str, now: datetime, but: str = "") -> None:
    """Write down whose place is taken, so that no clock set back gives it to two."""
    session.execute(_END_OVERDUE, {"group": group_id, "but": but, "now": now})


def _check_not_submitted(assignment: Assignment) -> None:
    if assignment.state == "submitted":
        detail = f"assignment {assignment.id} has been submitted; amend its labels instead"
        raise Problem(409, "assignment-finished", "The assignment is finished", detail)


def _why(assignment: Assignment, token: str) -> str:
    if token != assignment.token:
        return "has another lease_token"
    if assignment.state in ("live", "expired"):
        return f"ran out at {assignment.expires_at.isoformat()} and its images may be others'"
    return f"has been {assignment.state}"


def _check_complete(session: Session, assignment: Assignment, sent: set[str]) -> None:
    missing = set(assignment.positions) - sent
    if missing:
        missing -= _answered(session, assignment)
    if missing:
        errors = [{"pointer": "#/labels", "detail": f"image {id} is missing"} for id in missing]
        detail = f"{len(missing)} images have no label; say `skip`, or send `final: false`"
        raise Problem(422, "labels-incomplete", "Labels are missing", detail, errors)


def _answered(session: Session, assignment: Assignment) -> set[str]:
    """Images of the group that the lease's holder has labelled."""
    of_person = (
        Label.group_id == assignment.group_id,
        Label.annotator_id == assignment.annotator_id,
    )
    return set(session.scalars(select(Label.image_id).where(*of_person)))


def _count_skip(session: Session, group_id: str, now: datetime, settings: "Settings") -> None:
    groups = core(Group)
    one_more = update(groups).where(groups.c.id == group_id, ~groups.c.is_gold)
    num_skips = session.scalar(
        one_more.values(num_skips=groups.c.num_skips + 1).returning(groups.c.num_skips)
    )
    if num_skips is not None and num_skips >= settings.max_skips:
        give_up(session, [group_id], "retired", now, settings)
