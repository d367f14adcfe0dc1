"""What every page has around its panels: where one is, what else there is, how the run fares."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from services.dashboard.elements import chip, link, tag
from services.dashboard.label_admin import LabelAdmin
from services.dashboard.label_source import LabelSource
from services.dashboard.numbers import duration
from services.dashboard.sessions import COOKIE, ROLES, Sessions
from services.runs_api.job_runner import JobRunner
from services.runs_api.library import Library, OpenRun
from services.web.auth import Credentials, Principal

PAGES = {
    "": "Overview",
    "rewards": "Rewards",
    "gallery": "Gallery",
    "labels": "Labels",
    "training": "Training",
    "throughput": "Throughput",
    "workers": "Workers",
    "checkpoints": "Checkpoints",
    "control": "Run control",
    "alerts": "Alerts",
    "audit": "Audit",
    "settings": "Settings",
}
"""Part of the address to title, in the order of the navigation."""
TONES = {
    "running": "good",
    "finished": "calm",
    "stopped": "calm",
    "paused": "warn",
    "starting": "calm",
    "ending": "calm",
    "failed": "bad",
    "silent": "bad",
    "unreadable": "bad",
    "dead": "bad",
    "alive": "good",
    "resting": "warn",
    "applied": "good",
    "done": "good",
    "rejected": "bad",
    "timed_out": "bad",
    "critical": "bad",
    "warning": "warn",
}
HEARTBEAT_S = 2.0
"""How often a page hears that it is fed; without, it says that it is stale (live.js)."""
RECHECK_S = 5.0
"""How often an open page asks whether its session still lives."""
HEAD = """<link rel="stylesheet" href="/assets/dashboard.css" />
<script type="module" src="/assets/live.js"></script>"""
NO_SCRIPT = """<noscript><p class="stale">The pages of the dashboard are drawn by JavaScript, which
this browser has turned off. The API has the same, for programs: /api/v1/runs.</p></noscript>"""


@dataclass(frozen=True)
class Shell:
    """What pages work with."""

    library: Library
    sessions: Sessions
    labels: LabelSource
    jobs: JobRunner
    admin: LabelAdmin


@dataclass(frozen=True)
class Visit:
    """One opened page."""

    shell: Shell
    principal: Principal
    cookie: str
    query: dict[str, str]
    """Of the address; what it has several times is joined by commas."""

    @classmethod
    def of(cls, shell: Shell, request: Request) -> "Visit":
        """From a request that the gate let through."""
        cookie = request.cookies.get(COOKIE, "")
        given = request.query_params
        query = {name: ",".join(given.getlist(name)) for name in given}
        return cls(shell, request.state.principal, cookie, query)

    async def is_admin_still(self) -> Principal | None:
        """Who it is, asked anew, if an admin: a key may have been revoked since the page opened."""
        found = await self._look_up()
        return found if found is not None and found.role == "admin" else None

    async def is_over(self) -> bool:
        """Whether the session has ended, or the key behind it, since the page opened."""
        found = await self._look_up()
        return found is None or found.role not in ROLES

    async def _look_up(self) -> Principal | None:
        return await self.shell.sessions.look_up(Credentials(cookie=self.cookie))


Draw = Callable[[Visit, OpenRun], Awaitable[None]]


def register_page(shell: Shell, path: str, name: str, draw: Draw) -> None:
    """A page of a run: /runs/{run_id}/`path`."""
    address = "/runs/{run_id}" + (f"/{path}" if path else "")

    @ui.page(address, response_timeout=30)
    async def page(request: Request, run_id: str) -> None:
        await show(shell, request, run_id, name, draw)


async def show(shell: Shell, request: Request, run_id: str, name: str, draw: Draw) -> None:
    """A page of the run of that id, if there is one that can be read."""
    visit = Visit.of(shell, request)
    run = await asyncio.to_thread(shell.library.find, run_id)
    if run is None:
        with outline(visit, None, "No such run"):
            tag("p", "This folder has no run of that name.")
            link("All runs", "/")
        return
    with outline(visit, run, name, await asyncio.to_thread(_state_of, run)), complaining():
        await asyncio.to_thread(run.check)
        await draw(visit, run)


@contextmanager
def complaining() -> Iterator[None]:
    """What cannot be read is said in its place."""
    try:
        yield
    except (ValueError, OSError) as error:
        tag("p", f"This cannot be read: {error}", "stale of-panels", role="alert")


@contextmanager
def outline(
    visit: Visit, run: OpenRun | None, name: str, state: tuple[str, str] = ("", "")
) -> Iterator[None]:
    """Header with the run's state, navigation and the page's own part."""
    ui.add_head_html(HEAD)
    ui.add_body_html(NO_SCRIPT)
    ui.page_title(f"{name} - {run.id if run else 'TDM-R1'}")
    tag("a", "Skip to the content", "skip", href="#content")
    with tag("header", classes="bar"):
        link("TDM-R1", "/", "brand")
        if run is not None:
            link(run.id, f"/runs/{run.id}", "run")
            _live_state(run, state)
        tag("span", f"{visit.principal.role}", "who")
    with tag("div", classes="columns"):
        if run is not None:
            _navigation(run, name)
        with tag("div", classes="content", id="content", tabindex="-1"):  # the page is the main
            tag("h1", name)
            yield
    ui.timer(HEARTBEAT_S, lambda: ui.run_javascript("window.heard?.()"))
    ui.timer(RECHECK_S, partial(_leave_if_over, visit), immediate=False)


async def _leave_if_over(visit: Visit) -> None:
    """A socket that is open passes no gate, so the page itself ends: its panels with their timers,
    this one too, and the gate shows the browser the way in."""
    if await visit.is_over():
        content = ui.context.client.content
        ui.navigate.reload()
        content.clear()


def _navigation(run: OpenRun, current: str) -> None:
    with tag("nav", aria_label="Pages of this run"):
        for path, title in PAGES.items():
            address = f"/runs/{run.id}/{path}".rstrip("/")
            link(title, address, aria_current="page" if title == current else None)


def _state_of(run: OpenRun) -> tuple[str, str]:
    """A word, and how far it is or what is wrong."""
    try:
        facts = run.facts()
    except (ValueError, OSError) as error:
        return "unreadable", str(error)
    return facts["state"], _progress(facts)


def _live_state(run: OpenRun, first: tuple[str, str]) -> None:
    place = tag("span", classes="state", role="status")

    def show_state(state: str, more: str) -> None:
        place.clear()
        with place:
            chip(state, TONES.get(state, "calm"))
            tag("span", more, "quiet")

    async def look_again() -> None:
        show_state(*await asyncio.to_thread(_state_of, run))

    show_state(*first)
    ui.timer(3.0, look_again, immediate=False)


def _progress(facts: dict[str, Any]) -> str:
    total = f" of {facts['iterations']}" if facts.get("iterations") is not None else ""
    doing = f", {facts['doing']}" if facts.get("doing") else ""
    age = "" if facts["age_s"] is None else f", news {ago(facts['age_s'])}"
    return f"iteration {facts.get('iteration', '-')}{total}{doing}{age}"


def ago(seconds: float) -> str:
    """How long ago, in a unit that fits."""
    return f"{duration(seconds, 0)} ago"
