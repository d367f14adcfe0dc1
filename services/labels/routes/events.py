"""What happens, as it happens: one resumable stream for everything a caller may hear."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.labels.event_bus import Wants
from services.labels.event_stream import stream
from services.labels.events import TOPICS, audiences
from services.web.auth import Principal, credentials_of, require
from services.web.problems import Problem, problems
from services.web.streams import STREAM, EventStream, chosen_topics

router = APIRouter(tags=["events"])
MAX_ID = 2**63 - 1


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
    wants = Wants(chosen_topics(topics, TOPICS), audiences(principal.role, principal.annotator_id))
    credentials = credentials_of(request.scope)

    async def still_allowed() -> bool:
        try:
            return await state.directory.look_up(credentials) is not None
        except Problem as problem:  # busy is not forbidden
            return problem.status not in (401, 403)

    release = state.streams.take(principal.key_id)
    blocks = stream(state.bus, wants, last_event_id, still_allowed)
    return EventStream(state.streams, blocks, release)
