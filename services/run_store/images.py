"""Images by content, and an index that says what each is.

`images/sha256/ab/<digest>.png` is named by the SHA-256 of its own bytes, so equal images are one
file and a name cannot lie. `images/index.jsonl` has one line an appearance; its `predictions` are
the digests of what the image was predicted to be after each denoising step but the last.

`evaluations` is such a store, too. Its index has two lines an evaluation: its `images` once they
are there, and its `verdicts` once all have judged.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.run_store.files import write_whole
from services.run_store.tail import Tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tdm_core.types import RewardRecord


def verdict(record: "RewardRecord") -> dict[str, Any]:
    """What an index says of one reward's record."""
    return {
        "state": record.state,
        "value": record.value,
        "reason": record.reason,
        "version": record.version,
        "latency_s": round(record.latency_s, 6),
        "parts": {name: part for name, part in record.parts.items() if math.isfinite(part)},
    }


def thumbnail_path(cache: Path, size: int | str, digest: str) -> Path:
    """Where a dashboard keeps an image with at most `size` pixels a side."""
    return cache / str(size) / digest[:2] / f"{digest}.webp"


def forget_thumbnails(cache: Path, digest: str) -> None:
    """Delete every small version of an image that was removed."""
    for folder in cache.glob("*"):
        thumbnail_path(cache, folder.name, digest).unlink(missing_ok=True)


class ImageStore:
    """PNG files under one folder; one writer, any number of readers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, pixels_HW3: "NDArray[Any]") -> str:
        """Store uint8 pixels (H, W, 3) losslessly; the digest that names the file."""
        from PIL import Image  # readers of the index need no imaging library

        buffer = io.BytesIO()
        Image.fromarray(pixels_HW3).save(buffer, "PNG")
        return self.add_file(buffer.getvalue())

    def add_file(self, png: bytes) -> str:
        """Store a PNG file as it is; the digest that names it."""
        digest = hashlib.sha256(png).hexdigest()
        path = self.path(digest)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, png)
        return digest

    def path(self, digest: str) -> Path:
        """Where the image of that digest lies or would lie."""
        return self.folder / "sha256" / digest[:2] / f"{digest}.png"

    def append(self, appearances: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to the index; each has a `digest` and what is known of the image."""
        lines = "".join(json.dumps(dict(each), allow_nan=False) + "\n" for each in appearances)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.index_path.open("a") as file:
            file.write(lines)

    @property
    def index_path(self) -> Path:
        """The index: one JSON object a line, oldest first."""
        return self.folder / "index.jsonl"

    @property
    def removed_path(self) -> Path:
        """Tombstones: what was removed, and by which rule (services/run_store/retention.py)."""
        return self.folder / "removed.jsonl"

    def index(self) -> list[dict[str, Any]]:
        """Lines of the index, oldest first; a last line still being written is left out."""
        return Tail(self.index_path).read_all()
