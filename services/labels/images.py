"""Images in and out: checked by decoding, kept without loss and without metadata, served by digest.

A picture is named by the SHA-256 of the bytes that were sent. What is kept is its pixels, encoded
anew: a PNG of full size and WebPs of at most 512 and 256 pixels a side, made once, before the
answer; those of a tiny picture are lossless. So nothing of the sender's file but its pixels is ever
served.
"""

import asyncio
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageOps
from sqlalchemy import and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from services.labels.store.tables import Assignment, GroupImage, Image, Label, core
from services.run_store.files import write_whole
from services.web.auth import Principal
from services.web.problems import Problem

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
SIZES = {"orig": "image/png", "512": "image/webp", "256": "image/webp"}
"""What can be asked for, and what is served."""
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
TINY = 256
"""Pixels a side up to which copies are lossless."""
DECODERS = 2
"""Uploads that are decoded at a time."""
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, OverflowError)
"""What Pillow's decoders raise at bytes that are no picture."""


@dataclass(frozen=True)
class Picture:
    """A checked image, encoded anew in every size."""

    sha256: str
    media_type: str
    """Of the bytes that were sent."""
    width: int
    height: int
    num_bytes: int
    files: dict[str, bytes]
    """Size to content."""


class ImageFolder:
    """`sha256/ab/<digest>.<size>`: written whole and to the disk before anybody is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Few at a time: a decoded image has up to 64 million pixels.
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="image-decoder")

    async def take(self, content: bytes, sha256: str, max_pixels: int) -> Picture:
        """Check an upload (see `read_picture`), encode it and write it down."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoders, self._take, content, sha256, max_pixels)

    def close(self) -> None:
        """Finish what was begun."""
        self._decoders.shutdown()

    def _take(self, content: bytes, sha256: str, max_pixels: int) -> Picture:
        picture = read_picture(content, sha256, max_pixels)
        self.add(picture)
        return picture

    def has(self, sha256: str) -> bool:
        """Whether every size is there."""
        return all(self.path(sha256, size).exists() for size in SIZES)

    def remove(self, sha256: str) -> None:
        """Delete every size that is there."""
        for size in SIZES:
            self.path(sha256, size).unlink(missing_ok=True)

    def add(self, picture: Picture) -> None:
        """Write every size."""
        for size, content in picture.files.items():
            path = self.path(picture.sha256, size)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content, durable=True)

    def path(self, sha256: str, size: str) -> Path:
        """Where a size lies or would lie; of a digest that has been checked."""
        assert len(sha256) == 64
        assert sha256.isalnum()
        assert size in SIZES
        return self._folder / "sha256" / sha256[:2] / f"{sha256}.{size}"


def read_picture(content: bytes, sha256: str, max_pixels: int) -> Picture:
    """Check and encode an upload. 422 where the digest is another's, or it cannot be decoded; 415
    where it is no PNG, JPEG or WebP; 413 beyond `max_pixels`."""
    check_digest(content, sha256)
    if not content.startswith(SIGNATURES):
        raise _unsupported()
    try:
        with Pillow.open(io.BytesIO(content), formats=list(FORMATS)) as image:
            return _picture(image, content, sha256, max_pixels)
    except Pillow.UnidentifiedImageError as error:
        raise _unsupported() from error
    except Pillow.DecompressionBombError as error:  # far beyond any bound of ours
        raise _too_large(str(error)) from error
    except UNREADABLE as error:
        detail = f"it starts like an image but cannot be decoded ({error}); send it again"
        raise Problem(422, "image-unreadable", "The image cannot be read", detail) from error


def check_digest(content: bytes, sha256: str) -> None:
    """422 where the bytes have another digest."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        detail = f"the body's SHA-256 is {found}; PUT it there, or send the whole file"
        raise Problem(422, "digest-mismatch", "The digest does not fit", detail)


def store(session: Session, picture: Picture, key_id: str, now: datetime) -> tuple[Image, bool]:
    """Note a picture whose files are written: (image, whether it is new, or here once more)."""
    found = session.get(Image, picture.sha256)
    if found is not None and found.removed_at is None:
        return found, False
    image = found or Image(sha256=picture.sha256, pinned=False)
    image.created_at, image.key_id = now, key_id
    for name in ("media_type", "width", "height", "num_bytes"):
        setattr(image, name, getattr(picture, name))
    image.removed_at, image.withdrawn = None, False
    session.add(image)
    session.flush()
    return image, True


def find(session: Session, sha256: str) -> Image | None:
    """An image that is here, whoever may see it."""
    image = session.get(Image, sha256)
    return image if image is not None and image.removed_at is None else None


def check_withdrawn(
    session: Session, sha256: str, principal: Principal, lock: bool = False
) -> bool:
    """Whether an admin took the image away; 410 to everybody but an admin, who brings it back."""
    image = session.get(Image, sha256, with_for_update=lock or None)
    if image is None or not image.withdrawn:
        return False
    if principal.role != "admin":
        hint = "leave it out of your groups, or have an admin PUT it, which brings it back"
        raise _removed(sha256, image.removed_at, f"by an admin; {hint}")
    return True


def seen_by(session: Session, sha256: str, principal: Principal, now: datetime) -> None:
    """404 for an image of no group that this caller may see, 410 where it was removed.

    A person sees what is leased to them or was labelled by them; other roles see every group.
    """
    query = _SHOWN_TO_PERSON if principal.role == "annotator" else _SHOWN
    wanted = {"sha256": sha256, "me": principal.annotator_id, "now": now}
    image = session.execute(query, wanted).first()
    if image is None:
        raise Problem(404, "not-found", "Not found", f"there is no image {sha256} for you")
    if image.removed_at is not None:
        raise _removed(sha256, image.removed_at)


_assignments, _images, _labels, _places = (
    core(mapped) for mapped in (Assignment, Image, Label, GroupImage)
)
_LEASED = (
    exists()
    .where(_assignments.c.group_id == _places.c.group_id)
    .where(_assignments.c.annotator_id == bindparam("me"))
    .where(
        or_(
            and_(_assignments.c.state == "live", _assignments.c.expires_at > bindparam("now")),
            _assignments.c.state == "submitted",
        )
    )
)
_LABELLED = exists().where(
    _labels.c.group_id == _places.c.group_id, _labels.c.annotator_id == bindparam("me")
)
_LINKED = exists().where(_places.c.sha256 == _images.c.sha256)
_IMAGE = select(_images.c.removed_at).where(_images.c.sha256 == bindparam("sha256"))
_SHOWN = _IMAGE.where(_LINKED)
_SHOWN_TO_PERSON = _IMAGE.where(_LINKED.where(or_(_LEASED, _LABELLED)))


def _picture(image: Pillow.Image, content: bytes, sha256: str, max_pixels: int) -> Picture:
    media_type = FORMATS[image.format or ""]
    # The header alone has been read: nothing is decoded that is too large.
    if image.width * image.height > max_pixels:
        raise _too_large(f"it has {image.width} x {image.height} pixels")
    if getattr(image, "n_frames", 1) > 1:
        detail = "it is animated; send one frame"
        raise Problem(422, "image-animated", "The image is animated", detail)
    if image.mode.startswith(("I", "F")):
        detail = f"its pixels are of mode {image.mode}; send 8 bits a channel"
        raise Problem(422, "image-depth", "Too many bits a channel", detail)
    image.load()
    upright = ImageOps.exif_transpose(image)
    pixels = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    pixels.info = {}  # or the encoders would keep a profile
    files = {"orig": _encode(pixels, "PNG", compress_level=2)}
    # What a photograph does not show ruins a picture of 32 pixels, and costs nothing to keep.
    fidelity = {"lossless": max(pixels.size) <= TINY, "quality": 90, "method": 2}
    for size in ("512", "256"):
        pixels.thumbnail((int(size), int(size)), Pillow.Resampling.LANCZOS)
        files[size] = _encode(pixels, "WEBP", **fidelity)
    return Picture(sha256, media_type, upright.width, upright.height, len(content), files)


def _encode(image: Pillow.Image, format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _removed(sha256: str, at: datetime | None, how: str = "") -> Problem:
    detail = f"image {sha256} was removed on {at and at.date()} {how}".strip()
    return Problem(410, "image-removed", "The image was removed", detail)


def _unsupported() -> Problem:
    detail = "the body is no PNG, JPEG or WebP image, whatever its Content-Type says"
    return Problem(415, "image-type", "Not an image of a kind we take", detail)


def _too_large(what: str) -> Problem:
    detail = f"{what}; see the settings max_image_bytes and max_image_pixels, and send less"
    return Problem(413, "image-too-large", "The image is too large", detail)
