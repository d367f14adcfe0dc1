"""Groups in: the images of one prompt, put once under an id that the sender chooses."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, insert, select
from sqlalchemy.orm import Session

from services.labels.aggregation import give_up, order_weight
from services.labels.claiming import draw
from services.labels.events import record_event
from services.labels.store.tables import Assignment, Group, GroupImage, Image, Question, Run, core
from services.web.ids import timeless_id
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.settings import Settings


@dataclass(frozen=True)
class NewImage:
    """One image of a group to come."""

    index: int
    sha256: str
    seed: int | None = None


@dataclass(frozen=True)
class NewGroup:
    """A group as its sender describes it."""

    id: str
    run_id: str
    prompt_id: str
    prompt_text: str
    question_id: str
    policy_version: int
    images: Sequence[NewImage]
    checkpoint_id: str | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    auto_rewards: dict[str, Any] = field(default_factory=dict)
    overlap: int | None = None
    """People asked for each image; None draws 1 or 2 by the setting `overlap_rate`."""
    priority: int = 0
    deadline_at: datetime | None = None
    content_warning: str | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def put(session: Session, new: NewGroup, now: datetime, settings: "Settings") -> tuple[Group, bool]:
    """Store a group: (group, whether it is new). 409 where the id stands for another one, 422 where
    the question or an image is not known. Beyond `max_open_groups` the oldest policy's expire."""
    found = session.get(Group, new.id)
    if found is not None:
        if found.body_sha256 != new.digest:
            detail = f"group {new.id!r} has been put with another body; choose another group_id"
            raise Problem(409, "group-exists", "The group exists", detail)
        return found, False
    _check_question(session, new.question_id)
    _check_images(session, new.images)
    run = _touch_run(session, new)
    group = Group(
        **{name: getattr(new, name) for name in _SAME},
        num_images=len(new.images),
        overlap=new.overlap or 1 + (draw("overlap", new.id) < settings.overlap_rate),
        body_sha256=new.digest,
        order_weight=order_weight([run.like_rate] * len(new.images), new.policy_version),
        created_at=now,
    )
    session.add(group)
    session.flush()
    images = [
        {"id": timeless_id(), "group_id": new.id, **asdict(image)}
        for image in sorted(new.images, key=lambda image: image.index)
    ]
    session.execute(insert(core(GroupImage)), images)
    told = {"group_id": new.id, "run_id": new.run_id, "policy_version": new.policy_version}
    record_event(session, "groups", "group.opened", told, now)
    _expire_backlog(session, new.run_id, now, settings)
    return group, True


_SAME = (
    "id",
    "run_id",
    "prompt_id",
    "prompt_text",
    "question_id",
    "policy_version",
    "checkpoint_id",
    "sampler",
    "auto_rewards",
    "priority",
    "deadline_at",
    "content_warning",
)
"""Columns that hold what was sent."""


def get(session: Session, group_id: str) -> Group:
    """404 where there is none."""
    group = session.get(Group, group_id)
    if group is None:
        raise Problem(404, "not-found", "Not found", f"there is no group {group_id!r}")
    return group


def images_of(session: Session, group_ids: Sequence[str]) -> dict[str, list[GroupImage]]:
    """Group id to its images, by index."""
    query = select(GroupImage).where(GroupImage.group_id.in_(group_ids))
    found: dict[str, list[GroupImage]] = {id: [] for id in group_ids}
    for image in session.scalars(query.order_by(GroupImage.index)):
        found[image.group_id].append(image)
    return found


def _check_question(session: Session, question_id: str) -> None:
    question = session.get(Question, question_id)
    if question is None or question.state != "active":
        state = "closed" if question else "unknown"
        detail = f"question {question_id!r} is {state}; an admin makes one with POST /questions"
        errors = [{"pointer": "#/question_id", "detail": detail}]
        raise Problem(422, "question-unknown", "Unknown question", detail, errors)


def _check_images(session: Session, images: Sequence[NewImage]) -> None:
    present = (Image.sha256.in_({image.sha256 for image in images}), Image.removed_at.is_(None))
    known = set(session.scalars(select(Image.sha256).where(*present)))
    errors = [
        {"pointer": f"#/images/{place}/sha256", "detail": f"image {image.sha256} is not here"}
        for place, image in enumerate(images)
        if image.sha256 not in known
    ]
    if errors:
        detail = f"{errors[0]['detail']}; PUT /images/<sha256> first"
        raise Problem(422, "image-unknown", "Unknown image", detail, errors)


def _touch_run(session: Session, new: NewGroup) -> Run:
    run = session.get(Run, new.run_id)
    if run is None:
        run = Run(id=new.run_id, newest_policy=new.policy_version, like_rate=0.5)
        session.add(run)
        session.flush()
    elif run.newest_policy < new.policy_version:
        run.newest_policy = new.policy_version
        session.flush()
    return run


def _expire_backlog(session: Session, run_id: str, now: datetime, settings: "Settings") -> None:
    """Beyond the bound, give up what the oldest policies made and nobody has begun."""
    waiting = (Group.run_id == run_id, Group.state == "open", ~Group.is_gold)
    num_open = session.scalar(select(func.count()).select_from(Group).where(*waiting)) or 0
    excess = num_open - settings.max_open_groups
    if excess <= 0:
        return
    leased = exists().where(
        Assignment.group_id == Group.id, Assignment.state == "live", Assignment.expires_at > now
    )
    oldest = (
        select(Group.id)
        .where(*waiting, Group.num_labels == 0, ~leased)
        .order_by(Group.policy_version, Group.created_at)
        .limit(excess)
    )
    give_up(session, session.scalars(oldest).all(), "expired", now, settings)
