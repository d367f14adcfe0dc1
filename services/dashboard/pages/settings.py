"""Settings: this browser's theme, who it is, and the run's resolved config."""

from dataclasses import dataclass

from nicegui import ui

from services.dashboard.elements import empty, link, tag
from services.dashboard.frame import Visit
from services.dashboard.panels import Board, Stamp
from services.runs_api.library import OpenRun
from services.web.keys import redact


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    config: str


def load(run: OpenRun) -> Model:
    """The config that the run was started with."""
    run.facts()  # says so where the run is gone
    path = run.folder.config
    text = redact(path.read_text()) if path.exists() else ""
    return Model(Stamp(run.folder.origin().get("created_at")), text)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(run))

    def panels() -> None:
        board.panel("This browser", lambda model: _browser(visit), of=lambda model: "the same")
        board.panel("For programs", lambda model: _programs(run))
        board.panel("Config of the run", _config, wide=True)

    await board.start(panels)


def _browser(visit: Visit) -> None:
    tag("p", f"Signed in as {visit.principal.actor}, role {visit.principal.role}.")
    if visit.principal.role == "admin":
        link("Keys: who may sign in", "/keys")
    with tag("div", classes="actions", role="group", aria_label="Theme"):
        for title, theme in (("Light", "light"), ("Dark", "dark"), ("As the system", "")):
            button = tag("button", title, type="button")
            button.on("click", js_handler=f"() => window.chooseTheme('{theme}')")
    out = tag("button", "Sign out", "plain", type="button")

    def sign_out() -> None:
        visit.shell.sessions.close(visit.cookie)
        ui.navigate.to("/login")

    out.on("click", sign_out)


def _programs(run: OpenRun) -> None:
    tag("p", "Everything here is in the API too, under the same keys.")
    for name in ("", "/metrics", "/groups", "/checkpoints", "/workers", "/alerts", "/commands"):
        with tag("p"):
            link(f"GET /api/v1/runs/{run.id}{name}", f"/api/v1/runs/{run.id}{name}")


def _config(model: Model) -> None:
    if not model.config:
        empty("The folder has no config.yaml.")
        return
    tag("pre", model.config, "log", tabindex="0")
