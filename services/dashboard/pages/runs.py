"""Every run of the folder, and two or more side by side."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from services.dashboard.elements import chip, empty, link, table, tag
from services.dashboard.frame import TONES, Shell, Visit, ago, outline
from services.dashboard.numbers import reward_names, short
from services.dashboard.panels import Board, Stamp, clock
from services.runs_api.library import Library


@dataclass(frozen=True)
class Row:
    """A run in the list."""

    run_id: str
    facts: dict[str, Any]
    rewards: dict[str, float | None]
    num_alerts: int
    created_at: float | None


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    rows: list[Row]
    broken: dict[str, str]
    """Folder to why it cannot be read."""

    @property
    def stamp(self) -> Stamp:
        """The newest news of all."""
        told = (row.facts for row in self.rows if row.facts["age_s"] is not None)
        return Stamp(max((facts["updated_at"] for facts in told), default=None))


def load(library: Library) -> Model:
    """The newest first."""
    found = []
    runs, broken = library.look_up()
    for run in runs:
        with run.glance() as glance:
            rewards = {
                name: glance.newest[f"reward/{name}/mean"].value
                for name in reward_names(glance.newest)
            }
        lasting = sum(alert.cleared_at is None for alert in run.alerts())
        origin = run.folder.origin()
        found.append(Row(run.id, run.facts(), rewards, lasting, origin.get("created_at")))
    return Model(found, broken)


def register(shell: Shell) -> None:
    """At the root."""

    @ui.page("/", response_timeout=30)
    async def page(request: Request) -> None:
        visit = Visit.of(shell, request)
        with outline(visit, None, "Runs"):
            if visit.principal.role == "admin":
                with tag("p", classes="links"):
                    link("Keys", "/keys")
                    link("Audit", "/audit")
            board = Board("all-runs", lambda: load(shell.library))
            await board.start(lambda: board.panel("Runs of this folder", _list, wide=True))

    @ui.page("/compare")
    def compare(request: Request) -> RedirectResponse:
        first, *others = request.query_params.getlist("with") or [""]
        if shell.library.find(first) is None:
            return RedirectResponse("/", 303)
        return RedirectResponse(
            f"/runs/{first}/rewards?{urlencode({'with': ','.join(others)})}", 303
        )


def _list(model: Model) -> None:
    rows = model.rows
    for name, why in sorted(model.broken.items()):
        tag("p", f"{name} cannot be read: {why}", "quiet")
    if not rows:
        empty("No run yet; `tdm-r1 demo` makes one.")
        return
    with tag("form", method="get", action="/compare", classes="compare"):
        head = ("", "run", "state", "iteration", "reward", "alerts", "started", "news")
        table(head, [_cells(row) for row in rows], "Runs")
        tag("button", "Compare the chosen", "plain", type="submit")


def _cells(row: Row) -> list[Any]:
    facts = row.facts
    total = f" / {facts['iterations']}" if facts.get("iterations") is not None else ""
    rewards = ", ".join(f"{name} {short(value)}" for name, value in row.rewards.items())
    return [
        lambda: tag(
            "input",
            type="checkbox",
            name="with",
            value=row.run_id,
            aria_label=f"Take {row.run_id}",
        ),
        lambda: link(row.run_id, f"/runs/{row.run_id}"),
        lambda: chip(facts["state"], TONES.get(facts["state"], "calm")),
        f"{facts.get('iteration', '-')}{total}",
        rewards or "-",
        str(row.num_alerts) if row.num_alerts else "none",
        "-" if row.created_at is None else clock(row.created_at),
        "not known" if facts["age_s"] is None else ago(facts["age_s"]),
    ]
