"""Browser sessions: an invite becomes a cookie, which says who labels until it ends."""

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from services.labels.schemas.sessions import Login, SessionView
from services.labels.sessions import end_session, live_session, start_session
from services.labels.store.tables import BrowserSession
from services.web.answers import answer
from services.web.auth import COOKIE, Principal, require
from services.web.problems import Problem, problems
from services.web.sessions import clear_cookie, set_cookie

router = APIRouter(prefix="/session", tags=["sessions"])


@router.post(
    "", operation_id="log_in", status_code=201, response_model=SessionView, responses=problems()
)
async def log_in(body: Login, request: Request) -> Response:
    """Use an invite up. The cookie is new, whatever the browser had before."""
    state = request.app.state
    state.limiter.take("login", request.client.host if request.client else "")
    now = state.clock()
    old_cookie = request.cookies.get(COOKIE, "")
    row, cookie = await state.database.write(
        lambda session: start_session(session, body.invite, old_cookie, now)
    )
    response = answer(SessionView.of(row), 201)
    set_cookie(response, cookie, _is_secure(request))
    return response


@router.get("", operation_id="get_session", response_model=SessionView, responses=problems())
async def get(request: Request, _: Principal = require()) -> Response:
    """Who this browser is, and the token that its changes need; 404 for a caller with a key."""
    now = request.app.state.clock()
    cookie = request.cookies.get(COOKIE, "")

    def query(session: Session) -> BrowserSession | None:
        return live_session(session, cookie, now)

    row = await request.app.state.database.read(query)
    if row is None:
        detail = "a key needs no session; only a browser's cookie has one"
        raise Problem(404, "not-found", "No session", detail)
    return answer(SessionView.of(row))


@router.delete("", operation_id="log_out", status_code=204, responses=problems())
async def log_out(request: Request, _: Principal = require()) -> Response:
    """End this browser's session."""
    now = request.app.state.clock()
    cookie = request.cookies.get(COOKIE, "")
    await request.app.state.database.write(lambda session: end_session(session, cookie, now))
    response = answer(None, 204)
    clear_cookie(response, _is_secure(request))
    return response


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"
