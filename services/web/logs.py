"""Logs without secrets: whatever is logged, by us or by a library, loses them on the way out."""

import logging
import re

from services.web.keys import redact

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SOCKET_QUERY = re.compile(r"(\"WebSocket [^?\"]*)\?[^\"]*")
"""uvicorn tells of a socket with its whole address, and NiceGUI puts the page's id there: who knows
it can press the page's buttons."""


class RedactingFormatter(logging.Formatter):
    """Takes our secrets out of the whole line, a traceback's lines too, and sockets' queries."""

    def format(self, record: logging.LogRecord) -> str:
        """The line to write."""
        return redact(SOCKET_QUERY.sub(r"\1", super().format(record)))


def log_to_stderr(level: int = logging.INFO) -> None:
    """Set this process's logging up; for commands, not for libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
