"""Small versions of images: made once, kept in a cache that may be deleted at any time."""

import hashlib
import io
import logging
from pathlib import Path

from PIL import Image

from services.run_store.files import write_whole
from services.run_store.images import thumbnail_path
from services.run_store.run_folder import BrokenRunError

MAX_PIXELS = 64_000_000
log = logging.getLogger(__name__)


class NoThumbnailError(ValueError):
    """A picture cannot be made smaller; the message says why."""


def stored_image(path: Path, digest: str) -> bytes:
    """The file, if it is what its digest says: a link to any other file shows nothing of that."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise BrokenRunError(f"{path} is not what its digest says; it was changed by hand")
    return content


def thumbnail(image: Path, digest: str, size: int, cache: Path) -> bytes:
    """`image` as WebP with at most `size` pixels a side, or as it is where it is no larger.
    FileNotFoundError where it is gone."""
    path = thumbnail_path(cache, size, digest)
    if image.exists() and path.exists():
        return path.read_bytes()
    content = stored_image(image, digest)
    small = _smaller(content, size)
    if small is None:
        return content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, small)
    except OSError as error:  # such as a disk that is full: then it is made each time
        log.warning("a thumbnail is not kept: %s", error)
    return small


def _smaller(content: bytes, size: int) -> bytes | None:
    """None where it is small already."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            if max(opened.size) <= size:
                return None
            if opened.width * opened.height > MAX_PIXELS:
                raise NoThumbnailError(f"it has more than {MAX_PIXELS} pixels; ask for size=orig")
            small = opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise NoThumbnailError(f"it is no whole picture ({error}); ask for size=orig") from error
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
