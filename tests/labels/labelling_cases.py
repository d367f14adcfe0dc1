"""A label database with a question, people, images and groups as tests want them."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from services.labels import groups, leases
from services.labels.labelling import Recorded, Verdict, record
from services.labels.people import Person, by_id
from services.labels.settings import Settings
from services.labels.store.tables import (
    Annotator,
    Assignment,
    Group,
    GroupImage,
    Image,
    Question,
    RewardMessage,
    Table,
)
from tests.labels.postgresql import NUMBERS_BEGIN_AGAIN

START = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = Settings(data_dir=Path("unused"), gold_rate=0, overlap_rate=0)
"""No gold, no overlap by chance."""


class World:
    """One session over a database, and a clock that the test moves."""

    def __init__(self, session: Session, settings: Settings = PLAIN) -> None:
        self.session, self.settings, self.now = session, settings, START
        if session.get(Question, "like") is None:
            session.add(Question(id="like", text="Do you like it?", created_at=START))
            session.flush()

    def wait(self, seconds: float) -> None:
        """Move the clock."""
        self.now += timedelta(seconds=seconds)

    def set(self, **settings: Any) -> None:
        """Change settings."""
        self.settings = self.settings.model_copy(update=settings)

    def person(self, id: str) -> Person:
        """An annotator, made where missing."""
        if self.session.get(Annotator, id) is None:
            self.session.add(Annotator(id=id, name=id, created_at=START))
            self.session.flush()
        return by_id(self.session, id)

    def group(self, id: str, num_images: int = 4, **changes: Any) -> list[str]:
        """Put a group; its image ids."""
        new = groups.NewGroup(
            id=id,
            run_id="run",
            prompt_id="p",
            prompt_text="a cat",
            question_id="like",
            policy_version=0,
            images=[groups.NewImage(i, self.image(str(i))) for i in range(num_images)],
        )
        groups.put(self.session, replace(new, **changes), self.now, self.settings)
        query = select(GroupImage.id).where(GroupImage.group_id == id).order_by(GroupImage.index)
        return list(self.session.scalars(query))

    def image(self, name: str) -> str:
        """The digest of an image that is said to be there."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        if self.session.get(Image, digest) is None:
            facts = {"media_type": "image/png", "width": 8, "height": 8, "num_bytes": 1}
            self.session.add(Image(sha256=digest, created_at=START, **facts))
            self.session.flush()
        return digest

    def label(self, person: str, images: Sequence[str], values: str) -> list[Recorded]:
        """Push verdicts, a letter an image: l(ike) d(islike) u(nsure) s(kip)."""
        verdicts = verdicts_of(self.person(person), images, values)
        return record(self.session, verdicts, "api", self.now, self.settings)

    def claim(self, person: str, **more: Any) -> Assignment | None:
        """Lease a group to a person; None where there is none."""
        self.person(person)
        given = leases.claim(self.session, person, None, self.now, self.settings, **more)
        return given and given[0]

    def submit(self, lease: Assignment, values: str, final: bool = True) -> list[Recorded]:
        """Submit verdicts in the order of the group's index; only on what the lease asks for."""
        query = select(GroupImage.id).where(GroupImage.group_id == lease.group_id)
        images = list(self.session.scalars(query.order_by(GroupImage.index)))
        own = leases.own(self.session, lease.id, lease.annotator_id)
        said = verdicts_of(self.person(lease.annotator_id), images, values)
        verdicts = [verdict for verdict in said if verdict.image_id in own.positions]
        return leases.submit(
            self.session, own, lease.token, verdicts, final, self.now, self.settings
        )

    def state(self, group_id: str) -> Group:
        """The group as it stands."""
        return self.session.get_one(Group, group_id, populate_existing=True)

    def messages(self, group_id: str) -> list[RewardMessage]:
        """What the trainer was told, oldest first."""
        query = select(RewardMessage).where(RewardMessage.group_id == group_id)
        query = query.order_by(RewardMessage.reward_revision)
        return list(self.session.scalars(query.execution_options(populate_existing=True)))


def verdicts_of(person: Person, images: Sequence[str], values: str) -> list[Verdict]:
    """A letter an image; a dash says nothing of it."""
    words = {"l": "like", "d": "dislike", "u": "unsure", "s": "skip"}
    pairs = zip(images, values, strict=True)
    return [Verdict(image, person, words[letter]) for image, letter in pairs if letter != "-"]


@contextmanager
def world(settings: Settings = PLAIN, url: str | None = None) -> Iterator[World]:
    """A fresh one: in memory, or within a transaction that leaves the database as it was."""
    if url is not None:
        engine = create_engine(url, poolclass=NullPool, isolation_level="SERIALIZABLE")
        with engine.connect() as connection, Session(connection) as session:
            connection.exec_driver_sql(NUMBERS_BEGIN_AGAIN)
            yield World(session, settings)
        return
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Table.metadata.create_all(engine)
    with Session(engine) as session:
        yield World(session, settings)
    engine.dispose()
