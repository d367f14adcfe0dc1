"""Long polls of the reward queue: one look at the database for everybody who waits."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy.orm import Session

from services.labels import reward_queue
from services.labels.reward_queue import Received
from services.labels.store.database import Database
from services.web.clock import Clock

POLL_S = 0.2
LISTENING_S = 2.0
"""How often a waiting request asks whether its caller is still there."""


class QueueWatch:
    """Wakes who waits for messages of a run, or of any (None), when there are some."""

    def __init__(self, database: Database, clock: Clock, poll_s: float = POLL_S) -> None:
        self._database = database
        self._clock = clock
        self._poll_s = poll_s
        self._waiting: dict[asyncio.Event, str | None] = {}
        self._polling: asyncio.Task[None] | None = None

    async def wait(self, run_id: str | None, patience_s: float) -> None:
        """Return when a message can be received, or after `patience_s` seconds."""
        news = asyncio.Event()
        self._waiting[news] = run_id
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll())
        try:
            await asyncio.wait_for(news.wait(), patience_s)
        except TimeoutError:
            pass
        finally:
            del self._waiting[news]

    async def _poll(self) -> None:
        """Consumes: the queue's state. Produces: wake-ups. Ends: when nobody waits."""
        while self._waiting:
            now = self._clock()
            runs = await self._database.look(
                lambda session, now=now: reward_queue.runs_with_messages(session, now)
            )
            for news, run_id in self._waiting.items():
                if run_id in runs or (run_id is None and runs):
                    news.set()
            await asyncio.sleep(self._poll_s)


async def receive(
    watch: QueueWatch,
    database: Database,
    clock: Clock,
    max_groups: int,
    visibility_seconds: float,
    wait_seconds: float,
    run_id: str | None,
    is_gone: Callable[[], Awaitable[bool]],
) -> Received:
    """What can be received, waiting up to `wait_seconds` for it; nothing to a caller who left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while True:
        now = clock()

        def anything(session: Session, now=now) -> bool:
            return reward_queue.anything_visible(session, run_id, now)

        def take(session: Session, now=now) -> Received:
            return reward_queue.receive(session, max_groups, visibility_seconds, run_id, now)

        if await is_gone():
            return Received([], 0, [])
        if await database.look(anything):
            received = await database.write(take)
            if received.messages:
                return received
        left_s = deadline - loop.time()
        if left_s <= 0:
            return Received([], 0, [])
        await watch.wait(run_id, min(left_s, LISTENING_S))
