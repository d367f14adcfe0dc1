"""The dashboard as an ASGI app: the run-side API, and before everything else its pages.

NiceGUI keeps its pages in one app of the process, so one process serves one dashboard.
"""

from functools import partial
from typing import Annotated

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from nicegui import core, ui

from services.dashboard import sign_in
from services.dashboard.frame import PAGES, Draw, Shell, register_page, show
from services.dashboard.gate import SOCKET, Gate
from services.dashboard.label_admin import LabelAdmin
from services.dashboard.label_source import LabelSource
from services.dashboard.own_pages import keep_events_to_own_pages
from services.dashboard.pages import (
    alerts,
    audit,
    checkpoints,
    control,
    gallery,
    group,
    keys,
    labels,
    overview,
    rewards,
    runs,
    settings,
    throughput,
    training,
    workers,
)
from services.dashboard.sessions import COOKIE, Sessions
from services.runs_api import app as runs_api
from services.runs_api.routes.groups import MAX_ID
from services.runs_api.settings import Settings
from services.web.auth import KeyRing
from services.web.clock import Clock, utc_now
from services.web.limits import Rate, RateLimiter
from services.web.problems import Problem

OPEN_ROUTES = runs_api.OPEN_ROUTES | {("POST", runs_api.API + sign_in.PATH)}
GroupId = Annotated[int, Path(ge=0, le=MAX_ID)]
LOGIN_RATE = Rate(num=10, per_s=60)
DRAWS: dict[str, Draw] = {
    "": overview.draw,
    "rewards": rewards.draw,
    "gallery": gallery.draw,
    "labels": labels.draw,
    "training": training.draw,
    "throughput": throughput.draw,
    "workers": workers.draw,
    "checkpoints": checkpoints.draw,
    "control": control.draw,
    "alerts": alerts.draw,
    "audit": audit.draw,
    "settings": settings.draw,
}


def create_app(
    found: Settings,
    key_ring: KeyRing,
    label_source: LabelSource,
    label_admin: LabelAdmin,
    clock: Clock = utc_now,
) -> FastAPI:
    """The app; `state.sessions` makes the link that opens it once."""
    sessions = Sessions(key_ring, clock)
    inside = ((Gate, {"sessions": sessions, "allowed_origins": found.allowed_origins}),)
    app = runs_api.create_app(found, sessions, clock, COOKIE, OPEN_ROUTES, inside, (SOCKET,))
    app.state.sessions = sessions
    app.state.limiter = RateLimiter({"login": LOGIN_RATE}, clock)
    app.include_router(sign_in.router, prefix=runs_api.API)
    app.include_router(sign_in.pages)
    _close_the_rest_of_the_api(app)
    _register(Shell(app.state.library, sessions, label_source, app.state.jobs, label_admin))
    ui.run_with(
        app,
        title="TDM-R1",
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=30.0,
    )
    keep_events_to_own_pages()
    # Its own would be a page with a memory of its own, for whoever asks for any address.
    for fault in (404, RequestValidationError):
        core.app.add_exception_handler(fault, _no_such_page)
    return app


async def _no_such_page(request: Request, error: Exception) -> Response:
    return sign_in.file_of_ours("lost.html", 404)


def _close_the_rest_of_the_api(app: FastAPI) -> None:
    """What the API does not know is a problem of the API and no page."""

    @app.api_route(
        "/api/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False
    )
    def unknown(path: str) -> None:
        raise Problem(404, "not-found", "Not found", f"the API has no /api/{path}")


def _register(shell: Shell) -> None:
    runs.register(shell)
    labels.register(shell)
    audit.register(shell)
    keys.register(shell)
    for path, title in PAGES.items():
        register_page(shell, path, title, DRAWS[path])

    @ui.page("/runs/{run_id}/groups/{group_id}", response_timeout=30)
    async def page(request: Request, run_id: str, group_id: GroupId) -> None:
        draw = partial(group.draw, group_id)
        await show(shell, request, run_id, f"Group {group_id}", draw)
