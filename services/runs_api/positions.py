"""How far a reader has come in a run's files. It is the id of an event, so a stream can be resumed
by anybody, after any restart, with nothing told twice and nothing left out."""

import re
from dataclasses import dataclass

_TEXT = re.compile(
    r"m(\d{1,18})\.i(\d{1,18})\.l(\d{1,18})\.a(\d{1,18})\.c(\d{1,20})\.s(\d{1,20})\.r(\d{1,14})"
)


@dataclass(frozen=True)
class Position:
    """Bytes read of the files that grow, and the times of the newest that are replaced."""

    metrics: int = 0
    images: int = 0
    log: int = 0
    alerts: int = 0
    commands_ns: int = 0
    """Modification time of the newest command file."""
    status_ns: int = 0
    """And of the status."""
    begun_ms: int = 0
    """When the run began, in Unix milliseconds: another of its name has other files; 0 is any."""

    def __str__(self) -> str:
        return (
            f"m{self.metrics}.i{self.images}.l{self.log}.a{self.alerts}"
            f".c{self.commands_ns}.s{self.status_ns}.r{self.begun_ms}"
        )

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """The position that a text stands for; None for any other text."""
        found = _TEXT.fullmatch(text)
        return cls(*map(int, found.groups())) if found else None
