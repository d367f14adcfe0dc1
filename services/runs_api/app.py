"""The run-side API as an ASGI app: what surrounds a request, and whose routers answer it.

Every route under /api/v1 is closed: a router with a route that names no `require(...)` is an error
here, and `Authentication` turns strangers away before a route is looked for.
"""

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.types import Scope

from services.run_store.run_folder import BrokenRunError
from services.runs_api.job_runner import JobRunner
from services.runs_api.library import Library
from services.runs_api.metrics import observe_request, sse_clients
from services.runs_api.routes import (
    commands,
    events,
    groups,
    human_agreement,
    images,
    jobs,
    metrics,
    runs,
    system,
)
from services.runs_api.settings import Settings
from services.web import problems
from services.web.auth import Authentication, KeyRing, check_closed, credentials_of
from services.web.clock import Clock, utc_now
from services.web.middleware import Doorkeeper, Envelope
from services.web.openapi import describe
from services.web.problems import Problem
from services.web.streams import Places

API = "/api/v1"
OPEN_ROUTES = frozenset({("GET", f"{API}/openapi.json")})
"""All that a stranger may ask of the API: what there is to ask."""
API_ROUTERS: tuple[APIRouter, ...] = (
    runs.router,
    metrics.router,
    groups.router,
    human_agreement.router,
    images.router,
    commands.router,
    jobs.router,
    events.router,
)
"""Routers under /api/v1, one file a resource."""


def create_app(
    settings: Settings,
    keys: KeyRing,
    clock: Clock = utc_now,
    cookie: str = "",
    open_routes: frozenset[tuple[str, str]] = OPEN_ROUTES,
    inside: Sequence[tuple[type, Mapping[str, Any]]] = (),
    raw_prefixes: tuple[str, ...] = (),
) -> FastAPI:
    """The app over a folder of runs. `keys` knows who may ask; `cookie` names the one that a
    browser's session is in, none if empty; `inside` are middlewares with their arguments, nearest
    to the routes; bodies under `raw_prefixes` need not be JSON. Routes find `library`, `settings`,
    `jobs`, `streams` and `still_allowed` in `app.state`."""
    app = FastAPI(
        title="TDM-R1 runs",
        version="1",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # They load scripts from elsewhere.
        redoc_url=None,
        redirect_slashes=False,
    )
    state = app.state
    state.settings = settings
    state.library = Library(settings.runs, settings.max_open_runs)
    state.jobs = JobRunner(settings.jobs, settings.max_job_s)
    state.streams = Places(settings.max_streams, sse_clients)
    state.still_allowed = _asking(keys, cookie)
    problems.install(app)
    for unreadable in (BrokenRunError, OSError, sqlite3.Error):  # such as a disk that is full
        app.add_exception_handler(unreadable, _on_unreadable)
    for middleware, arguments in inside:
        app.add_middleware(middleware, **arguments)
    app.add_middleware(
        Authentication,
        authenticate=keys,
        prefix=f"{API}/",
        open_routes=open_routes,
        allowed_origins=settings.allowed_origins,
        ip_salt=secrets.token_bytes(32),  # no address is kept here
        cookie=cookie,
    )
    app.add_middleware(
        Doorkeeper,
        allowed_hosts=settings.allowed_hosts,
        body_limit=lambda path: settings.max_body_bytes,
        raw_prefixes=raw_prefixes,
    )
    app.add_middleware(Envelope, clock=clock, prefix=API, observe=observe_request)
    for router in API_ROUTERS:
        check_closed(router, API, open_routes)
        app.include_router(router, prefix=API)
    app.include_router(system.router)
    describe(app, open_routes)
    return app


async def _on_unreadable(request: Request, error: Exception) -> Response:
    return problems.respond(request.scope, problems.unavailable(str(error)))


def _asking(keys: KeyRing, cookie: str) -> Any:
    async def still_allowed(scope: Scope) -> bool:
        try:
            return await keys.look_up(credentials_of(scope, cookie)) is not None
        except Problem as problem:  # busy is not forbidden
            return problem.status not in (401, 403)

    return still_allowed
