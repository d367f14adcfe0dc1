"""Names of things: ULIDs, which sort by the time of their making, or do not tell it."""

import secrets
from datetime import datetime

from ulid import ULID


def new_id(now: datetime) -> str:
    """A fresh ULID of 26 characters; later ones sort later, within a millisecond too."""
    return str(ULID.from_datetime(now))


def timeless_id() -> str:
    """A fresh ULID of 128 random bits: it tells neither when nor after what it was made."""
    return str(ULID.from_bytes(secrets.token_bytes(16)))
