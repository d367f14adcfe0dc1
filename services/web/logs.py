"""Logs without secrets: whatever is logged, by us or by a library, loses them on the way out."""

import logging

from services.web.keys import redact

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """Takes our secrets out of the whole line, a traceback's lines too."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to write."""
        return redact(super().format(record))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Set this process's logging up; for commands, not for libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
