"""Browser sessions: how long they live, and their cookie."""

from datetime import datetime, timedelta

from fastapi import Response

from services.web.auth import COOKIE

IDLE = timedelta(hours=12)
"""A session that nobody uses ends."""
LIFETIME = timedelta(days=7)
"""One that somebody uses ends too."""
TOUCH_EVERY = timedelta(minutes=1)
"""How stale `last_seen_at` and `last_used_at` may be: reading must not cost a write each time."""


def is_live(last_seen_at: datetime, expires_at: datetime, now: datetime) -> bool:
    """Neither idle for too long nor past its end."""
    return now < expires_at and now < last_seen_at + IDLE


def set_cookie(response: Response, secret: str, secure: bool, name: str = COOKIE) -> None:
    """The cookie of a new session; `secure` where the service is reached by https."""
    response.set_cookie(
        name,
        secret,
        max_age=int(LIFETIME.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def clear_cookie(response: Response, secure: bool) -> None:
    """Make the browser forget it."""
    response.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="lax")
