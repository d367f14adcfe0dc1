"""The picture sheets of a run's evaluations: the same held-out prompts and noise at every one."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


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
        self._known: dict[Path, tuple[tuple[int, int], Sheet]] = {}

    def all(self) -> list[Sheet]:
        """Oldest first."""
        paths = sorted(self._folder.glob("[!.]*.png"))
        found = [self._sheet(path) for path in paths]
        return sorted(found, key=lambda sheet: sheet.written_at)

    def by_digest(self, digest: str) -> Sheet | None:
        """The sheet of that digest."""
        return next((sheet for sheet in self.all() if sheet.digest == digest), None)

    def _sheet(self, path: Path) -> Sheet:
        about = path.stat()
        version = (about.st_mtime_ns, about.st_size)
        known = self._known.get(path)
        if known is None or known[0] != version:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            known = version, Sheet(path.stem, digest, about.st_mtime, path)
            self._known[path] = known
        return known[1]
