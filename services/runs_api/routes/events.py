"""What happens in a run, as it happens: one resumable stream."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from services.runs_api.event_stream import stream
from services.runs_api.positions import Position
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.watching import TOPICS
from services.web.auth import Principal
from services.web.problems import Problem, problems
from services.web.streams import STREAM, EventStream, chosen_topics

router = APIRouter(prefix="/runs/{run_id}", tags=["events"])


@router.get(
    "/events",
    operation_id="stream_run_events",
    response_class=StreamingResponse,
    responses={**problems(), **STREAM},
)
async def events(
    *,
    principal: Principal = WATCHER,
    run: Run,
    request: Request,
    topics: Annotated[str | None, Query(max_length=200, description=", ".join(TOPICS))] = None,
    last_event_id: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Server-Sent Events, named by topic. `id` is a place in the run's files: come back with
    Last-Event-ID, to any server over them, and nothing is missed or told twice. `event: reset`
    means fetch the state anew. A comment comes every 15 s."""
    state = request.app.state
    position = None
    if last_event_id is not None:
        position = Position.parse(last_event_id)
        if position is None:
            detail = f"Last-Event-ID {last_event_id!r} is no id of this stream; leave it out"
            errors = [{"pointer": "header:last-event-id", "detail": detail}]
            raise Problem(422, "invalid-request", "The request is not valid", detail, errors)
    wanted = chosen_topics(topics, TOPICS) or frozenset(TOPICS)

    async def still_allowed() -> bool:
        return await state.still_allowed(request.scope)

    release = state.streams.take(principal.key_id)
    blocks = stream(run.folder, wanted, position, still_allowed)
    return EventStream(state.streams, blocks, release)
