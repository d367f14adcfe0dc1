"""A run's events as Server-Sent Events: resumable at any id, with a pulse.

`id` is a position in the run's files. `event: reset` says that the id is of other files: fetch the
state anew and go on from this block's id.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable

from services.run_store.run_folder import RunFolder
from services.runs_api.positions import Position
from services.runs_api.watching import Happening, TornError, newest, since

HEARTBEAT_S = 15.0
POLL_S = 0.5
MAX_BLOCKS = 200
"""Events handed out before somebody reads on."""


async def stream(
    folder: RunFolder,
    topics: frozenset[str],
    position: Position | None,
    still_allowed: Callable[[], Awaitable[bool]],
    heartbeat_s: float = HEARTBEAT_S,
    poll_s: float = POLL_S,
) -> AsyncGenerator[str]:
    """Blocks behind `position` (None: behind what there is now), for as long as somebody reads them
    and, asked once a pulse, is still allowed to."""
    place = position or await asyncio.to_thread(newest, folder)
    yield f": from {place}\nid: {place}\n\n"
    clock = asyncio.get_running_loop().time
    pulse_at = clock() + heartbeat_s
    while True:
        try:
            happenings = await asyncio.to_thread(_some, folder, place)
        except TornError:
            place, happenings = await asyncio.to_thread(newest, folder), []
            yield f"id: {place}\nevent: reset\ndata: {{}}\n\n"
        for happening in happenings:
            place = happening.position
            if happening.topic in topics:
                yield _block(happening)
        if clock() >= pulse_at:
            if not await still_allowed():
                return
            pulse_at = clock() + heartbeat_s
            # The id moves on past what this client does not want.
            yield f": heartbeat\nid: {place}\n\n"
        if len(happenings) < MAX_BLOCKS:
            await asyncio.sleep(poll_s)


def _some(folder: RunFolder, position: Position) -> list[Happening]:
    found = []
    for happening in since(folder, position):
        found.append(happening)
        if len(found) == MAX_BLOCKS:
            break
    return found


def _block(happening: Happening) -> str:
    data = json.dumps(happening.data, separators=(",", ":"))
    return f"id: {happening.position}\nevent: {happening.topic}\ndata: {data}\n\n"
