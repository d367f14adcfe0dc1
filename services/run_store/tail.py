"""The new lines of a file that grows: each is read once, a line still being written not yet."""

import json
from pathlib import Path
from typing import Any

CHUNK_BYTES = 8 * 1024 * 1024


class Tail:
    """A place in a file of JSON lines; `position` may be kept and given again."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        self.position = position
        self.is_over = False
        """Whether the file became shorter, so that all that was read is of another file."""

    def read(self, max_bytes: int = CHUNK_BYTES) -> list[dict[str, Any]]:
        """Whole lines after `position`, at most `max_bytes` of them (one line at least)."""
        return [json.loads(line) for line in self.lines(max_bytes)]

    def lines(self, max_bytes: int = CHUNK_BYTES) -> list[bytes]:
        """The same, as they stand."""
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
