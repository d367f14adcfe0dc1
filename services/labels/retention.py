"""Images that go: removed by an admin, or old and needed by nobody. Their row stays, a tombstone:
who sends an old one again brings it back, one that an admin withdrew comes back by an admin alone.

What people labelled, gold, what an open group shows and what was pinned (by who evaluates with it)
is never old. Files are deleted after the commit that says so, by an operation that looks again: a
sender may have put the image back meanwhile. A crash in between leaves files, which the next hour
deletes.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.orm import Session

from services.labels.aggregation import give_up
from services.labels.images import ImageFolder
from services.labels.store.tables import Group, GroupImage, Image, core
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.settings import Settings

BATCH = 200
"""Images that one operation removes, so that no label waits long behind it."""
DELETED_AGAIN = timedelta(days=1)
"""How long after its removal a file that a crash has left is looked for."""

_log = logging.getLogger(__name__)
_groups, _images, _places = (core(mapped) for mapped in (Group, Image, GroupImage))


def check_quota(
    session: Session, sha256: str, key_id: str, num_bytes: int, settings: "Settings"
) -> None:
    """413 where an image of so many bytes, if it is new, is more than this key may store."""
    limit = settings.max_images_bytes_per_key
    if limit is None or session.scalar(_here(_images.c.sha256 == sha256).limit(1)):
        return
    stored = session.scalar(
        select(func.sum(_images.c.num_bytes)).where(
            _images.c.key_id == key_id, _images.c.removed_at.is_(None)
        )
    )
    if (stored or 0) + num_bytes > limit:
        detail = (
            f"this key has stored {stored or 0} of {limit} bytes and the image has {num_bytes}; an "
            "admin raises max_images_bytes_per_key, sets image_days or removes images"
        )
        raise Problem(413, "image-quota", "The key's images are too many", detail)


def withdraw(session: Session, image: Image, now: datetime, settings: "Settings") -> bool:
    """Take an image away from everybody, whoever needs it; open groups that show it are retired.
    Whether that is news. One that is gone keeps the time when it went."""
    if image.withdrawn:
        return False
    image.withdrawn, image.removed_at = True, image.removed_at or now
    session.flush()
    shown = select(_places.c.group_id).where(_places.c.sha256 == image.sha256)
    open_groups = select(_groups.c.id).where(_groups.c.state == "open", _groups.c.id.in_(shown))
    give_up(session, session.scalars(open_groups).all(), "retired", now, settings)
    gold = update(_groups).where(_groups.c.is_gold, _groups.c.id.in_(shown))
    session.execute(gold.values(state="retired", revision=_groups.c.revision + 1))
    return True


def touch(session: Session, sha256: str, now: datetime) -> None:
    """An image that was sent again is young again."""
    session.execute(update(_images).where(_images.c.sha256 == sha256).values(created_at=now))


def find(session: Session, sha256: str) -> Image:
    """The image, locked; 404 where nobody ever put it."""
    image = session.get(Image, sha256, with_for_update=True)
    if image is None:
        raise Problem(404, "not-found", "Not found", f"there is no image {sha256}")
    return image


def old(session: Session, now: datetime, settings: "Settings") -> list[str]:
    """Digests of images that nobody needs any more, the oldest first."""
    if settings.image_days is None:
        return []
    before = now - timedelta(days=settings.image_days)
    found = _here(_images.c.created_at < before, *_unneeded())
    return list(session.scalars(found.order_by(_images.c.created_at)))


def expire(session: Session, digests: Iterable[str], now: datetime) -> list[str]:
    """Remove those of these images that still nobody needs; which they were."""
    ids = list(session.scalars(_here(_images.c.sha256.in_([*digests]), *_unneeded())))
    session.execute(update(_images).where(_images.c.sha256.in_(ids)).values(removed_at=now))
    return ids


def delete_files(session: Session, folder: ImageFolder, digests: Sequence[str]) -> None:
    """Delete the files of those of these images that are not here (any more)."""
    here = set(session.scalars(_here(_images.c.sha256.in_([*digests]))))
    for sha256 in digests:
        if sha256 not in here:
            folder.remove(sha256)


async def expire_images(app: FastAPI) -> None:
    """Remove what is old, some at a time, and delete what a crash has left of yesterday's."""
    state = app.state
    now = state.clock()
    left = await state.database.read(lambda session: _removed_since(session, now - DELETED_AGAIN))
    ids = await state.database.read(lambda session: old(session, now, state.settings))
    for some in _batches(left):
        await state.database.write(lambda s, some=some: delete_files(s, state.images, some))
    for some in _batches(ids):
        gone = await state.database.write(lambda s, some=some: expire(s, some, now))
        await state.database.write(lambda s, gone=gone: delete_files(s, state.images, gone))
        await asyncio.sleep(0)
    if ids:
        _log.info("%d images were removed: older than %g days", len(ids), state.settings.image_days)


def _batches(digests: list[str]) -> Iterable[list[str]]:
    return (digests[start : start + BATCH] for start in range(0, len(digests), BATCH))


def _here(*conditions: ColumnElement[bool]) -> Any:
    return select(_images.c.sha256).where(_images.c.removed_at.is_(None), *conditions)


def _unneeded() -> tuple[ColumnElement[bool], ...]:
    needed = or_(_groups.c.state == "open", _groups.c.num_labels > 0, _groups.c.is_gold)
    shown = (
        exists()
        .where(_places.c.sha256 == _images.c.sha256, _places.c.group_id == _groups.c.id)
        .where(needed)
    )
    return ~_images.c.pinned, ~shown


def _removed_since(session: Session, since: datetime) -> list[str]:
    return list(session.scalars(select(_images.c.sha256).where(_images.c.removed_at > since)))
