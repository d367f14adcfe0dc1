"""Alerts: what is wrong now, what was, and the rules."""

from dataclasses import dataclass

from services.dashboard.elements import chip, empty, table, tag
from services.dashboard.frame import TONES, Visit
from services.dashboard.numbers import newest
from services.dashboard.panels import Board, Stamp, clock
from services.runs_api.alerts import Alert
from services.runs_api.library import OpenRun
from services.runs_api.rules import RULES


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    alerts: list[Alert]


def load(run: OpenRun) -> Model:
    """Every alert."""
    alerts = run.alerts()
    with run.numbers() as numbers:
        return Model(newest(numbers, run), alerts)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(run))

    def panels() -> None:
        of = lambda model: model.alerts  # noqa: E731
        board.panel("Now", lambda model: _list(model, True), wide=True, of=of)
        board.panel("Over", lambda model: _list(model, False), wide=True, of=of)
        board.panel("Rules", lambda model: _rules(), wide=True, of=lambda model: "the same")

    await board.start(panels)


def _list(model: Model, lasting: bool) -> None:
    found = [alert for alert in model.alerts if (alert.cleared_at is None) == lasting]
    if not found:
        empty("Nothing." if lasting else "Nothing yet.")
        return
    rows = [
        [
            lambda alert=alert: chip(alert.severity, TONES[alert.severity]),
            alert.title,
            alert.detail,
            alert.remedy,
            clock(alert.raised_at),
            "-" if alert.cleared_at is None else clock(alert.cleared_at),
            _iterations(alert),
        ]
        for alert in found
    ]
    head = ("severity", "what", "detail", "what helps", "since", "until", "iterations")
    table(head, rows, "Alerts that last" if lasting else "Alerts that are over")


def _iterations(alert: Alert) -> str:
    """In which it was so, as far as that is known."""
    if alert.raised_step is None:
        return "-"
    if alert.cleared_step is None:
        return f"from {alert.raised_step}"
    return f"{alert.raised_step} to {alert.cleared_step}"


def _rules() -> None:
    rows = [
        [rule.title, rule.metric, f"{rule.raise_at:g}", f"{rule.clear_below:g}", str(rule.hold)]
        for rule in RULES
    ]
    table(("alert", "number", "raised at", "cleared below", "lines in a row"), rows, "Rules")
    tag(
        "p",
        "Also: a dead worker, a stalled, silent or failed run, its clock, and what it raises.",
        "quiet",
    )
