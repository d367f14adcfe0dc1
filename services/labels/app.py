"""The label service as an ASGI app: what surrounds a request, and whose routers answer it.

Every route under /api/v1 is closed: a router with a route that names no `require(...)` is an error
here, and `Authentication` turns strangers away before a route is looked for.
"""

import secrets
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response

from services.labels.answers import KeptAnswers
from services.labels.authentication import Directory
from services.labels.background import Task, keep_house, running
from services.labels.bell import Bell
from services.labels.courier import deliver_events, forget_events
from services.labels.event_bus import EventBus
from services.labels.exporter import make_exports
from services.labels.habit_watch import watch_habits
from services.labels.images import ImageFolder
from services.labels.metrics import observe_request, sse_clients
from services.labels.pushing import Together
from services.labels.queue_watch import QueueWatch
from services.labels.routes import (
    aggregates,
    annotators,
    assignments,
    audit,
    diagnosis,
    events,
    exports,
    gold,
    groups,
    images,
    keys,
    labels,
    page,
    pushes,
    questions,
    reward_queue,
    sessions,
    statistics,
    system,
    webhooks,
)
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.sweeping import sweep_for_ever
from services.run_store.files import write_whole
from services.web import problems
from services.web.auth import Authentication, check_closed
from services.web.clock import Clock, utc_now
from services.web.idempotency import Running
from services.web.limits import RateLimiter
from services.web.middleware import Doorkeeper, Envelope
from services.web.openapi import describe
from services.web.streams import Places

API = "/api/v1"
OPEN_ROUTES = frozenset({("POST", f"{API}/session"), ("GET", f"{API}/openapi.json")})
"""All that a stranger may ask of the API: to log in with an invite, and what there is to ask."""

API_ROUTERS: tuple[APIRouter, ...] = (
    pushes.router,  # first: routes are tried in this order, and labels come the most often
    assignments.router,
    aggregates.router,
    annotators.router,
    audit.router,
    diagnosis.router,
    events.router,
    exports.router,
    gold.router,
    groups.router,
    images.router,
    keys.router,
    labels.router,
    questions.router,
    reward_queue.router,
    sessions.router,
    statistics.router,
    webhooks.router,
)
"""Routers under /api/v1, one file a resource."""
PAGE_ROUTERS: tuple[APIRouter, ...] = (system.router, page.router)
"""Routers at the root: pages, health, metrics. They are open and must tell strangers nothing."""
TASKS: tuple[Task, ...] = (
    keep_house,
    sweep_for_ever,
    deliver_events,
    forget_events,
    make_exports,
    watch_habits,
)
"""What runs beside the requests."""


def create_app(
    settings: Settings, clock: Clock = utc_now, database: Database | None = None
) -> FastAPI:
    """The app over an open database, or over the one that the settings name (created if missing).
    Routes find `database`, `images`, `settings`, `clock`, `bell`, `together`, `limiter`,
    `answers`, `running`, `directory`, `bus`, `reward_watch` and `streams` in `app.state`.
    """
    app = FastAPI(
        title="TDM-R1 label service",
        version="1",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # They load scripts from elsewhere.
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda app: running(app, TASKS),
    )
    state = app.state
    state.settings = settings
    state.clock = clock
    state.database = database or Database.open(settings.url)
    state.images = ImageFolder(settings.data_dir / "images")
    state.bell = Bell()
    state.together = Together(state.database, clock, settings)
    state.limiter = RateLimiter(dict(settings.rates), clock)
    state.answers = KeptAnswers()
    state.running = Running()
    state.directory = Directory(state.database, clock, state.limiter)
    state.bus = EventBus(state.database)
    state.reward_watch = QueueWatch(state.database, clock)
    state.streams = Places(settings.max_streams, sse_clients)
    problems.install(app)
    app.add_exception_handler(StoreUnavailable, _on_store_unavailable)
    _surround(app, settings, clock)
    for router in API_ROUTERS:
        check_closed(router, API, OPEN_ROUTES)
        app.include_router(router, prefix=API)
    for router in PAGE_ROUTERS:
        app.include_router(router)
    describe(app, OPEN_ROUTES)
    return app


def _surround(app: FastAPI, settings: Settings, clock: Clock) -> None:
    """The last one added is the outermost."""

    def body_limit(path: str) -> int:
        image = path.startswith(f"{API}/images/")
        return settings.max_image_bytes if image else settings.max_body_bytes

    app.add_middleware(
        Authentication,
        authenticate=app.state.directory,
        prefix=f"{API}/",
        open_routes=OPEN_ROUTES,
        allowed_origins=settings.allowed_origins,
        ip_salt=_ip_salt(settings.data_dir),
    )
    app.add_middleware(
        Doorkeeper,
        allowed_hosts=settings.allowed_hosts,
        body_limit=body_limit,
        raw_prefixes=(f"{API}/images/",),
    )
    app.add_middleware(Envelope, clock=clock, prefix=API, observe=observe_request)


async def _on_store_unavailable(request: Request, error: Exception) -> Response:
    return problems.respond(request.scope, problems.unavailable(str(error)))


def _ip_salt(data_dir: Path) -> bytes:
    """Keys the hashes of addresses; without it anybody could try all addresses of the internet."""
    path = data_dir / "ip-salt"
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # People's labels: nobody else's.
        write_whole(path, secrets.token_bytes(32), durable=True)
    return path.read_bytes()
