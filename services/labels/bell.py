"""Wakes those who wait for work, in this process; others look again after a while."""

import asyncio


class Bell:
    """`heard` before looking, `wait` after finding nothing: no ring between the two is missed."""

    def __init__(self) -> None:
        self._rings = 0
        self._waiting: set[asyncio.Event] = set()

    @property
    def heard(self) -> int:
        """How often it has rung."""
        return self._rings

    @property
    def num_waiting(self) -> int:
        """Who waits."""
        return len(self._waiting)

    def ring(self) -> None:
        """There may be work: wake everybody who waits. Call it in the event loop."""
        self._rings += 1
        for event in self._waiting:
            event.set()

    async def wait(self, heard: int, timeout_s: float) -> None:
        """Return when it has rung more often than `heard`, or after `timeout_s`."""
        if self._rings != heard:
            return
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(event)
