"""Server-Sent Events: how many streams a key may have open, and a response that gives its place
back however it ends."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence

from anyio import CancelScope
from fastapi.responses import StreamingResponse
from prometheus_client import Gauge
from starlette.types import Receive, Scope, Send

from services.web.problems import Problem

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STREAM = {200: {"content": {"text/event-stream": {}}, "description": "Server-Sent Events"}}


class Places:
    """Streams that are open, by key."""

    def __init__(self, limit: int, gauge: Gauge) -> None:
        """At most `limit` a key; `gauge` tells all of them."""
        self._limit = limit
        self._gauge = gauge
        self._open = Counter[str]()
        self.scopes: set[CancelScope] = set()
        """Of streams that are under way."""

    def __len__(self) -> int:
        return self._open.total()

    def take(self, key_id: str) -> Callable[[], None]:
        """One more of this key, and what gives it back; 429 where it has enough of them."""
        if self._open[key_id] >= self._limit:
            detail = f"{self._limit} event streams of this key are open; close one (max_streams)"
            headers = {"Retry-After": "5"}
            raise Problem(429, "too-many-streams", "Too many streams", detail, headers=headers)
        self._open[key_id] += 1
        self._gauge.inc()

        def release() -> None:
            self._open[key_id] -= 1
            if not self._open[key_id]:
                del self._open[key_id]
            self._gauge.dec()

        return release

    def end(self) -> None:
        """Let every stream go: the service ends, and would wait for them."""
        for scope in self.scopes:
            scope.cancel()


class EventStream(StreamingResponse):
    """Blocks for as long as somebody reads them and the service goes on."""

    def __init__(
        self, places: Places, blocks: AsyncGenerator[str], release: Callable[[], None]
    ) -> None:
        super().__init__(blocks, 200, HEADERS, "text/event-stream")
        self._places = places
        self._blocks = blocks
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        under_way = CancelScope()
        self._places.scopes.add(under_way)
        try:
            with under_way:
                await super().__call__(scope, receive, send)
            if under_way.cancelled_caught:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._places.scopes.discard(under_way)
            self._release()
            await self._blocks.aclose()


def chosen_topics(text: str | None, known: Sequence[str]) -> frozenset[str] | None:
    """The topics of a comma-separated text, None where none is given; 422 for an unknown one."""
    if text is None:
        return None
    topics = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(topics - set(known))
    if unknown or not topics:
        errors = [{"pointer": "query:topics", "detail": f"allowed: {', '.join(known)}"}]
        detail = f"topics {', '.join(unknown) or 'missing'}; allowed: {', '.join(known)}"
        raise Problem(422, "invalid-request", "The request is not valid", detail, errors)
    return topics
