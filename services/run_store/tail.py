"""The new lines of a file that grows: each is read once, a line still being written not yet.

A writer that died in the middle of a line leaves a torn one, and another hand may leave any: what
is not as a line must be is skipped and counted, and what stands before and after it is read.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json

log = logging.getLogger(__name__)
CHUNK_BYTES = 8 * 1024 * 1024


class Tail:
    """A place in a file of JSON lines; `position` may be kept and given again."""

    def __init__(
        self,
        path: Path,
        position: int = 0,
        is_ours: Callable[[dict[str, Any]], bool] = lambda line: True,
    ) -> None:
        """`is_ours` tells a line as it must be (services/run_store/forms.py)."""
        self.path = path
        self.position = position
        self._is_ours = is_ours
        self.is_over = False
        """Whether the file became shorter, so that all that was read is of another file."""
        self.num_skipped = 0
        """Lines so far that are not as they must be."""

    def read(self, max_bytes: int = CHUNK_BYTES) -> list[dict[str, Any]]:
        """Objects after `position`, of at most `max_bytes` (one line at least); none only at the
        end of the file, since torn lines are skipped."""
        start = self.position
        while lines := self.lines(max_bytes):
            if found := self._objects(lines, start):
                return found
            start = self.position
        return []

    def lines(self, max_bytes: int = CHUNK_BYTES) -> list[bytes]:
        """Whole lines after `position` as they stand, torn ones too."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size <= self.position:
            self.is_over = size < self.position
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            text = file.read(max_bytes)
            if b"\n" not in text:
                text += file.readline()
        whole, newline, _ = text.rpartition(b"\n")
        self.position += len(whole) + len(newline)
        return whole.split(b"\n") if newline else []

    def read_all(self) -> list[dict[str, Any]]:
        """Every whole line that there is after `position`."""
        found: list[dict[str, Any]] = []
        while lines := self.read():
            found += lines
        return found

    def _objects(self, lines: Sequence[bytes], start: int) -> list[dict[str, Any]]:
        found, torn = [], []
        for line in lines:
            said = _object(line)
            if said is not None and self._is_ours(said):
                found.append(said)
            else:
                torn.append(start)
            start += len(line) + 1
        if torn:
            self.num_skipped += len(torn)
            _warn(self.path, torn[0], len(torn))
        return found


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = from_json(line)  # unlike json.loads, no half of a character, and no depth
    except ValueError:  # no UTF-8 is one too
        return None
    return said if isinstance(said, dict) else None


@lru_cache(maxsize=1024)  # who reads the file again says it once
def _warn(path: Path, offset: int, num: int) -> None:
    log.warning(
        "%s: the line at byte %d is not what we write; %d such skipped here", path, offset, num
    )
