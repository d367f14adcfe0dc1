"""One reader of the event table for all listeners of this process.

The bus polls while somebody listens, and hands every event to every listener's bounded buffer. A
listener that does not keep up loses its buffer and is told to start over (`Listener.overflowed`);
nobody else waits for it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from services.labels.events import Horizon, look, oldest, read_between
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.store.tables import Event

PAGE = 500
POLL_S = 0.1
BUFFER = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wants:
    """What a listener may and wants to hear; None is everything."""

    topics: frozenset[str] | None
    audiences: frozenset[str] | None

    def __contains__(self, event: object) -> bool:
        return (
            isinstance(event, Event)
            and (self.topics is None or event.topic in self.topics)
            and (self.audiences is None or event.audience in self.audiences)
        )


@dataclass(eq=False)
class Listener:
    """One stream's place: everything after `start` comes through `take`."""

    wants: Wants
    start: int
    capacity: int
    overflowed: bool = False
    _events: deque[Event] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, events: Sequence[Event]) -> None:
        """Buffer what is wanted; too much of it is an overflow."""
        self._events.extend(event for event in events if event in self.wants)
        if len(self._events) > self.capacity:
            self._events.clear()
            self.overflowed = True
        if self._events or self.overflowed:
            self._news.set()

    async def take(self, patience_s: float) -> list[Event]:
        """What has come; empty after `patience_s` seconds without news, or after an overflow."""
        try:
            await asyncio.wait_for(self._news.wait(), patience_s)
        except TimeoutError:
            return []
        self._news.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Settling:
    """Which number every listener may go to: none below it can appear any more."""

    def __init__(self) -> None:
        self.settled = -1
        self._newest = 0
        self._awaited: frozenset[str] | None = None

    def update(self, horizon: Horizon) -> int:
        """The number, after one more look."""
        if self._awaited is not None:
            self._awaited &= horizon.writers
            if not self._awaited:
                self._settle(self._newest)
        if self._awaited is None and horizon.newest > self.settled:
            self._newest, self._awaited = horizon.newest, horizon.writers
            if not self._awaited:
                self._settle(self._newest)
        return self.settled

    def _settle(self, number: int) -> None:
        self.settled, self._awaited = max(self.settled, number), None


class EventBus:
    """`listen` is all that streams need; the bus reads only while somebody does."""

    def __init__(self, database: Database, poll_s: float = POLL_S, buffer: int = BUFFER) -> None:
        self._database = database
        self._poll_s = poll_s
        self._buffer = buffer
        self._listeners: set[Listener] = set()
        self._settling = Settling()
        self._position = 0
        self._polling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def position(self) -> int:
        """The number up to which events have been handed out."""
        return self._position

    @property
    def num_listeners(self) -> int:
        """Streams that are open."""
        return len(self._listeners)

    @asynccontextmanager
    async def listen(self, wants: Wants) -> AsyncIterator[Listener]:
        """A listener that hears every event after its `start`, in order, while it keeps up."""
        async with self._starting:
            if self._polling is None:
                await self._start()
            listener = Listener(wants, self._position, self._buffer)
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._stop()

    async def bounds(self) -> tuple[int, int]:
        """The lowest and the highest number in the table."""
        return await self._database.read(lambda session: (oldest(session), look(session).newest))

    async def backlog(self, wants: Wants, after: int, until: int) -> AsyncIterator[list[Event]]:
        """What is wanted of after < seq <= until, page after page."""
        while after < until:
            page = await self._read(after, until, wants.topics)
            if not page:
                return
            after = page[-1].seq
            yield [event for event in page if event in wants]

    async def _start(self) -> None:
        """Begin at what is newest now; what came while nobody listened is in the backlog."""
        self._settling = Settling()
        while (settled := await self._settle()) < 0:
            await asyncio.sleep(self._poll_s)
        self._position = settled
        self._polling = asyncio.create_task(self._poll())

    def _stop(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            self._polling = None

    async def _poll(self) -> None:
        """Consumes: the event table. Produces: listeners' buffers. Waits for: the next poll."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._hand_out()
            except StoreUnavailable as error:
                _log.warning("event streams wait: %s", error)

    async def _hand_out(self) -> None:
        settled = await self._settle()
        while self._position < settled:
            events = await self._read(self._position, settled, None)
            for listener in self._listeners:
                listener.offer(events)
            self._position = events[-1].seq if events else settled

    async def _settle(self) -> int:
        return self._settling.update(await self._database.look(look))

    async def _read(self, after: int, until: int, topics: frozenset[str] | None) -> Sequence[Event]:
        def query(session: Session) -> Sequence[Event]:
            return read_between(session, after, until, PAGE, topics)

        return await self._database.read(query)
