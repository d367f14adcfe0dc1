"""The picture sheets of a run's evaluations: the same held-out prompts and noise at every one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sheet:
    """One evaluation's sheet."""

    label: str
    """`teacher`, `before`, `step_000100`, `after`."""
    digest: str
    """SHA-256 of the file, which is its address."""
    written_at: float
    """Unix time."""
    path: Path


class Sheets:
    """Reads each file of a run's `evaluations` once, and again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[tuple[int, int], Sheet | None]] = {}

    def all(self) -> list[Sheet]:
        """Oldest first."""
        paths = sorted(path for path in self._folder.glob("[!.]*.png") if path.is_file())
        found = [sheet for path in paths if (sheet := self._sheet(path)) is not None]
        return sorted(found, key=lambda sheet: sheet.written_at)

    def by_digest(self, digest: str) -> Sheet | None:
        """The sheet of that digest."""
        return next((sheet for sheet in self.all() if sheet.digest == digest), None)

    def _sheet(self, path: Path) -> Sheet | None:
        about = path.stat()
        version = (about.st_mtime_ns, about.st_size)
        known = self._known.get(path)
        if known is None or known[0] != version:
            known = version, _read(path, about.st_mtime)
            self._known[path] = known
        return known[1]


def _read(path: Path, written_at: float) -> Sheet | None:
    """None for what only has the name of a picture: the digest that we tell would open it."""
    content = path.read_bytes()
    if not content.startswith(PNG):
        return None
    return Sheet(path.stem, hashlib.sha256(content).hexdigest(), written_at, path)
