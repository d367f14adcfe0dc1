"""What the service does by itself while it runs; nothing that a request promised waits for it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from sqlalchemy.orm import Session

from services.labels.answers import forget_old_answers
from services.labels.retention import expire_images

Task = Callable[[FastAPI], Awaitable[None]]
"""Runs until it is cancelled; finds its database and clock in `app.state`."""

RESTART_S = 5.0
HOUSEKEEPING_S = timedelta(hours=1).total_seconds()

_log = logging.getLogger(__name__)


@asynccontextmanager
async def running(app: FastAPI, tasks: Sequence[Task]) -> AsyncIterator[None]:
    """Run `tasks` meanwhile; one that fails says so and starts again after `RESTART_S`."""
    started = [asyncio.create_task(_supervise(app, task)) for task in tasks]
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def keep_house(app: FastAPI) -> None:
    """Forget the answers of yesterday's requests, and old images. Waits for: an hour to pass."""

    def operation(session: Session) -> None:
        forget_old_answers(session, app.state.clock())

    while True:
        await app.state.database.write(operation)
        await expire_images(app)
        await asyncio.sleep(HOUSEKEEPING_S)


async def _supervise(app: FastAPI, task: Task) -> None:
    while True:
        try:
            await task(app)
        except Exception:  # One broken task must not end the service: labels still come in.
            _log.exception("%s failed; it starts again in %g s", task.__name__, RESTART_S)
        await asyncio.sleep(RESTART_S)
