"""What happens, as it happens: one resumable stream for everything a caller may hear."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.labels import metrics
from services.labels.event_bus import Wants
from services.labels.event_stream import stream
from services.labels.events import TOPICS, audiences
from services.web.auth import Principal, credentials_of, require
from services.web.problems import Problem, problems

router = APIRouter(tags=["events"])
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
MAX_ID = 2**63 - 1
STREAM = {200: {"content": {"text/event-stream": {}}, "description": "Server-Sent Events"}}


@router.get(
    "/events",
    operation_id="stream_events",
    response_class=StreamingResponse,
    responses={**problems(), **STREAM},
)
async def events(
    request: Request,
    topics: Annotated[str | None, Query(max_length=200, description=", ".join(TOPICS))] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_ID)] = None,
    principal: Principal = require(),
) -> Response:
    """Server-Sent Events. `id` is the event's number: come back with Last-Event-ID and nothing is
    missed or told twice. `event: reset` means fetch the state anew. A comment comes every 15 s."""
    state = request.app.state
    wants = Wants(_topics(topics), audiences(principal.role, principal.annotator_id))
    credentials = credentials_of(request.scope)

    async def still_allowed() -> bool:
        try:
            return await state.directory.look_up(credentials) is not None
        except Problem as problem:  # busy is not forbidden
            return problem.status not in (401, 403)

    release = _take_place(state.streams, principal.key_id, state.settings.max_streams)
    blocks = stream(state.bus, wants, last_event_id, still_allowed)
    return _EventStream(blocks, release)


class _EventStream(StreamingResponse):
    """A stream that gives its place back however it ends."""

    def __init__(self, blocks: AsyncGenerator[str], release: Callable[[], None]) -> None:
        super().__init__(blocks, 200, HEADERS, "text/event-stream")
        self._blocks = blocks
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()
            await self._blocks.aclose()


def _take_place(streams: Counter[str], key_id: str, limit: int) -> Callable[[], None]:
    if streams[key_id] >= limit:
        detail = f"{limit} event streams of this key are open; close one (max_streams)"
        headers = {"Retry-After": "5"}
        raise Problem(429, "too-many-streams", "Too many streams", detail, headers=headers)
    streams[key_id] += 1
    metrics.sse_clients.inc()

    def release() -> None:
        streams[key_id] -= 1
        if not streams[key_id]:
            del streams[key_id]
        metrics.sse_clients.dec()

    return release


def _topics(text: str | None) -> frozenset[str] | None:
    if text is None:
        return None
    topics = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown: list[Any] = sorted(topics - set(TOPICS))
    if unknown or not topics:
        errors = [{"pointer": "query:topics", "detail": f"allowed: {', '.join(TOPICS)}"}]
        detail = f"topics {', '.join(unknown) or 'missing'}; allowed: {', '.join(TOPICS)}"
        raise Problem(422, "invalid-request", "The request is not valid", detail, errors)
    return topics
