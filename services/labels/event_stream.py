"""A listener's events as Server-Sent Events: resumable, with a pulse, started over when it must be.

A block's `id` is the event's number; a client that comes back with Last-Event-ID hears exactly what
it has not heard. `event: reset` says that this cannot be (the id is too old, of another database,
or the client too slow): fetch the state anew and go on from this block's id.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

from services.labels.event_bus import EventBus, Listener, Wants
from services.labels.store.tables import Event

HEARTBEAT_S = 15.0
MAX_BACKLOG = 20_000
"""Numbers behind the newest from which a client may resume; more is quicker fetched anew."""


async def stream(
    bus: EventBus,
    wants: Wants,
    last_id: int | None,
    still_allowed: Callable[[], Awaitable[bool]],
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncGenerator[str]:
    """Blocks for as long as somebody reads them and, asked once a pulse, is still allowed to."""
    async with bus.listen(wants) as listener:
        after = listener.start if last_id is None else last_id
        if await _cannot_resume(bus, after):
            after = listener.start
            yield _reset(after)
        else:
            yield f": from {after}\n\n"
            async for events in bus.backlog(wants, after, listener.start):
                yield _blocks(events)
        async for block in _live(bus, listener, after, still_allowed, heartbeat_s):
            yield block


async def _live(
    bus: EventBus,
    listener: Listener,
    after: int,
    still_allowed: Callable[[], Awaitable[bool]],
    heartbeat_s: float,
) -> AsyncGenerator[str]:
    clock = asyncio.get_running_loop().time
    ask_at = clock() + heartbeat_s
    while True:
        position = bus.position
        events = await listener.take(heartbeat_s)
        if clock() >= ask_at:  # However busy the stream is: a revoked key hears no more.
            if not await still_allowed():
                return
            ask_at = clock() + heartbeat_s
        if listener.overflowed:
            listener.overflowed, after = False, bus.position
            yield _reset(after)
        # Another host may have served numbers that this one had not reached yet.
        elif events := [event for event in events if event.seq > after]:
            yield _blocks(events)
        else:
            # The id moves on past what this client does not want, so that it never grows too old.
            yield f": heartbeat\nid: {max(position, after)}\n\n"


async def _cannot_resume(bus: EventBus, after: int) -> bool:
    first, newest = await bus.bounds()
    lost = after + 1 < first and after < newest
    return lost or after > newest or newest - after > MAX_BACKLOG


def _blocks(events: list[Event]) -> str:
    return "".join(_block(event) for event in events)


def _block(event: Event) -> str:
    content = {
        "seq": event.seq,
        "topic": event.topic,
        "type": event.type,
        "at": event.at.isoformat(),
        "data": event.data,
    }
    return f"id: {event.seq}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n"


def _reset(position: int) -> str:
    return f'id: {position}\nevent: reset\ndata: {{"seq":{position}}}\n\n'
