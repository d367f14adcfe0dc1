"""What surrounds the page in its tests: groups to label, and everything that can go wrong there."""

import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.labels import groups
from services.labels.images import ImageFolder, Picture, read_picture, store
from services.labels.labelling import Verdict, record
from services.labels.people import by_id
from services.labels.sessions import create_invite, start_session
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.labels.store.tables import (
    Assignment,
    BrowserSession,
    Group,
    GroupImage,
    Label,
    Question,
)
from tests.labels.people import make_annotator

NUM_PICTURES = 8


def draw_pictures(folder: Path) -> list[Picture]:
    """Images that differ, in every size, kept in `folder` as the service keeps them."""
    pictures = []
    keeper = ImageFolder(folder)
    for number in range(NUM_PICTURES):
        image = Image.new("RGB", (192, 192), (40 + 23 * number, 90, 210 - 19 * number))
        box = (30, 20 + 8 * number, 90 + 9 * number, 160)
        ImageDraw.Draw(image).ellipse(box, fill=(240, 30 * number, 110))
        content = io.BytesIO()
        image.save(content, "PNG")
        bytes_ = content.getvalue()
        pictures.append(read_picture(bytes_, hashlib.sha256(bytes_).hexdigest(), 10**6))
        keeper.add(pictures[-1])
    keeper.close()
    return pictures


class Stage:
    """A question, an annotator named Ann, and groups g1, g2, ... as a test wants them."""

    def __init__(
        self, database: Database, settings: Settings, pictures: Sequence[Picture] = ()
    ) -> None:
        self._database, self._settings, self._pictures = database, settings, pictures
        self._num_groups = 0
        self.ann = make_annotator(database, "Ann", self._now())
        self.write(self._ask)

    def _now(self) -> datetime:
        return datetime.now(UTC)

    def _ask(self, session: Session) -> None:
        session.add(Question(id="like", text="Do you like this image?", created_at=self._now()))

    def write(self, operation: Any) -> Any:
        """A transaction behind everybody's back."""
        return self._database.write_now(operation)

    def add_groups(
        self,
        count: int,
        images: int = 4,
        prompt: str = "a red cube on a blue table",
        content_warning: str | None = None,
        pictures: Sequence[Picture] = (),
    ) -> None:
        """Groups to be labelled after those before them, of `pictures` or of the first `images`."""
        shown = pictures or self._pictures[:images]
        self.write(lambda session: [store(session, each, "key", self._now()) for each in shown])
        digests = [picture.sha256 for picture in shown]
        for _ in range(count):
            self._num_groups += 1
            new = groups.NewGroup(
                id=f"g{self._num_groups}",
                run_id="run",
                prompt_id="p",
                prompt_text=prompt,
                question_id="like",
                policy_version=0,
                images=[groups.NewImage(i, digest) for i, digest in enumerate(digests)],
                content_warning=content_warning,
            )
            self.write(
                lambda session, new=new: groups.put(session, new, self._now(), self._settings)
            )

    def _put(self, new: groups.NewGroup) -> None:
        self.write(lambda session: groups.put(session, new, self._now(), self._settings))

    # What has come of it

    def labels(self, group_id: str | None = None) -> list[Label]:
        """Labels by the order in which Ann saw the images; of all groups where none is named."""
        query = select(Label).order_by(Label.assignment_id, Label.position)
        if group_id is not None:
            query = query.where(Label.group_id == group_id)
        return self._database.read_now(lambda session: list(session.scalars(query)))

    def values(self, group_id: str) -> str:
        """A letter a label."""
        return "".join(label.value[0] for label in self.labels(group_id))

    def value_of(self, group_id: str, index: int) -> str | None:
        """What was said of the image with this index."""
        query = select(Label.value).join(GroupImage, GroupImage.id == Label.image_id)
        query = query.where(Label.group_id == group_id, GroupImage.index == index)
        return self._database.read_now(lambda session: session.scalar(query))

    def digest(self, index: int) -> str:
        """SHA-256 of the images with this index."""
        return self._pictures[index].sha256

    def assignments(self, state: str) -> list[Assignment]:
        """Ann's leases in this state, oldest first."""
        query = select(Assignment).where(Assignment.state == state).order_by(Assignment.id)
        return self._database.read_now(lambda session: list(session.scalars(query)))

    # What goes wrong

    def sign_in(self) -> str:
        """A new session of Ann's: its cookie."""

        def operation(session: Session) -> str:
            _, invite = create_invite(session, self.ann, "annotator", self._now(), "test")
            return start_session(session, invite, "", self._now())[1]

        return self.write(operation)

    def invite(self) -> str:
        """The secret of an invite link for Ann."""
        make = lambda session: create_invite(  # noqa: E731
            session, self.ann, "annotator", self._now(), "test"
        )
        return self.write(make)[1]

    def end_sessions(self) -> None:
        """All at once."""
        ended = update(BrowserSession).values(ended_at=self._now())
        self.write(lambda session: session.execute(ended))

    def expire_leases(self) -> None:
        """All run out a moment ago."""
        past = self._now() - timedelta(seconds=1)
        self.write(lambda session: session.execute(update(Assignment).values(expires_at=past)))

    def give_away(self, group_id: str) -> None:
        """Ann's lease runs out, and somebody else has labelled the first image of the group."""
        self.expire_leases()
        bob = make_annotator(self._database, "Bob", self._now())
        first = select(GroupImage.id).where(GroupImage.group_id == group_id, GroupImage.index == 0)

        def operation(session: Session) -> None:
            verdict = Verdict(session.scalars(first).one(), by_id(session, bob), "like")
            record(session, [verdict], "api", self._now(), self._settings)

        self.write(operation)

    def touch(self, group_id: str) -> None:
        """Somebody has amended its labels: their revisions moved on."""
        changed = update(Label).where(Label.group_id == group_id).values(revision=7)
        self.write(lambda session: session.execute(changed))

    def consume(self, group_id: str) -> None:
        """The trainer has used it."""
        used = update(Group).where(Group.id == group_id).values(state="consumed")
        self.write(lambda session: session.execute(used))

    def guide(self, text: str, version: int) -> None:
        """Other guidelines."""
        changed = update(Question).values(guidelines=text, guidelines_version=version)
        self.write(lambda session: session.execute(changed))
