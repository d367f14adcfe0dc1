"""The way in: a static page, and the route that turns a key or a link into a cookie. And the other
files of ours that strangers get."""

from importlib.resources import files

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.dashboard.sessions import COOKIE, Sessions
from services.web.answers import answer
from services.web.problems import Problem, problems
from services.web.sessions import set_cookie

PATH = "/session"
ASSETS = {
    name: (media_type, files("services.dashboard").joinpath("assets", name).read_bytes())
    for name, media_type in {
        "login.html": "text/html; charset=utf-8",
        "lost.html": "text/html; charset=utf-8",
        "login.js": "text/javascript; charset=utf-8",
        "live.js": "text/javascript; charset=utf-8",
        "dashboard.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
    }.items()
}
"""Every static file, by name: no part of an address reaches the file system."""

router = APIRouter(include_in_schema=False)  # for our own page; programs have keys
pages = APIRouter(include_in_schema=False)


class SignIn(BaseModel):
    """What a browser's person has."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"secret": "tdmr1_01J..._..."}}
    )
    secret: str = Field(min_length=1, max_length=200, description="A key, or the link's secret")


@router.post(
    PATH, operation_id="sign_in", status_code=204, response_class=Response, responses=problems()
)
async def sign_in(body: SignIn, request: Request) -> Response:
    """Make this browser the key's; the cookie opens the pages and, for reading, the API."""
    state = request.app.state
    state.limiter.take("login", request.client.host if request.client else "")
    sessions: Sessions = state.sessions
    sessions.close(request.cookies.get(COOKIE, ""))  # nobody can plant one
    cookie = await sessions.open(body.secret)
    if cookie is None:
        detail = "this key or link is unknown, used, expired, revoked, or an annotator's"
        raise Problem(401, "sign-in-failed", "That does not open the dashboard", detail)
    response = answer(None, 204)
    set_cookie(response, cookie, request.url.scheme == "https", COOKIE)
    return response


@pages.get("/login")
async def login_page() -> Response:
    """Where a key becomes a session; it holds no data."""
    return file_of_ours("login.html")


@pages.get("/assets/{name}")
async def asset(name: str) -> Response:
    """Styles and scripts."""
    if name not in ASSETS:
        raise Problem(404, "not-found", "Not found", "no such file")
    return file_of_ours(name)


def file_of_ours(name: str, status: int = 200) -> Response:
    """One of the package's."""
    media_type, body = ASSETS[name]
    return Response(body, status, {"Cache-Control": "no-cache"}, media_type)
