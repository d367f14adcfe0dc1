"""Patience: a wait that is long says what it waits for, and no wait is endless; growing pauses."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

log = logging.getLogger(__name__)


class Patience:
    """Waits for workers; `waiting()` is what the run's status shows."""

    def __init__(self, report_s: float = 30.0, deadline_s: float = 3600.0) -> None:
        self.report_s = report_s
        self.deadline_s = deadline_s
        self._waits: dict[object, tuple[str, float]] = {}

    def waiting(self) -> list[dict[str, Any]]:
        """Waits older than the report interval: what for, and the seconds so far."""
        now = time.monotonic()
        ages = [(what, now - since) for what, since in self._waits.values()]
        return [{"for": what, "seconds": round(s, 1)} for what, s in ages if s >= self.report_s]

    async def wait(self, awaitable: Awaitable[Any], what: str, endless: bool = False) -> Any:
        """The awaitable's result; TimeoutError after `deadline_s` seconds unless `endless`.

        Ending this wait ends a coroutine that was given, but never a Task or Future, which others
        may be waiting for too.
        """
        owned = asyncio.iscoroutine(awaitable)
        future = asyncio.ensure_future(awaitable)
        key, since = object(), time.monotonic()
        self._waits[key] = (what, since)
        try:
            await self._watch(future, what, since, endless)
        finally:
            del self._waits[key]
            if owned:
                future.cancel()
        return future.result()

    async def _watch(
        self, future: asyncio.Future[Any], what: str, since: float, endless: bool
    ) -> None:
        while True:
            done, _ = await asyncio.wait({future}, timeout=self.report_s)
            if done:
                return
            elapsed = time.monotonic() - since
            log.warning("waiting for %s since %.0f s", what, elapsed)
            if elapsed >= self.deadline_s and not endless:
                raise TimeoutError(
                    f"waited {elapsed:.0f} s for {what}; cluster.deadline_s={self.deadline_s:g} "
                    "is the most, raise it if the work is that slow"
                )


class Pauses:
    """Pauses that double from `first_s` to `most_s` seconds, until something has gone well."""

    def __init__(self, first_s: float, most_s: float) -> None:
        self.first_s, self.most_s = first_s, most_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Seconds of the pause that is due; the one after it is longer."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self.most_s)
        return pause_s

    def start_anew(self) -> None:
        """It has gone well."""
        self._next_s = self.first_s


class Changes:
    """Lets coroutines wait until something about shared state is so."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Say that something has changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()`, looked at now and after every change."""
        while not condition():
            await self._next.wait()

    async def news(self, within_s: float | None) -> None:
        """Wait for the next change, or as long as that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._next.wait()
