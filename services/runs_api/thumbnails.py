"""Small versions of images: made once, kept in a cache that may be deleted at any time."""

import io
from pathlib import Path

from PIL import Image

from services.run_store.files import write_whole
from services.run_store.images import thumbnail_path

MAX_PIXELS = 64_000_000


def thumbnail(image: Path, digest: str, size: int, cache: Path) -> Path:
    """The WebP file of `image` with at most `size` pixels a side, or `image` itself where it is no
    larger. FileNotFoundError where the image is gone."""
    path = thumbnail_path(cache, size, digest)
    if image.exists() and path.exists():
        return path
    with Image.open(image) as opened:
        if max(opened.size) <= size:
            return image
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{image.name} has more than {MAX_PIXELS} pixels; ask for size=orig")
        small = opened.convert("RGB")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, buffer.getvalue())
    return path
