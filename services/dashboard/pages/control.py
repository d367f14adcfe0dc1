"""Run control: commands through the run's durable inbox, each with its outcome."""

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from services.dashboard.elements import chip, empty, table, tag
from services.dashboard.frame import TONES, Visit
from services.dashboard.panels import Board, Stamp, clock
from services.run_store import commands
from services.run_store.commands import Command
from services.run_store.run_folder import ENDED
from services.runs_api.library import OpenRun
from services.runs_api.routes.commands import request_once
from services.runs_api.schemas.commands import CommandIn
from services.web.problems import Problem

ACTIONS = {
    "pause": ("Pause", "It finishes its iteration and waits."),
    "unpause": ("Unpause", "It goes on."),
    "checkpoint": ("Checkpoint now", "It saves after this iteration and goes on."),
    "stop": ("Stop", "It ends after this iteration, with a checkpoint."),
}
CONFIRMED = ("stop",)
"""What cannot be taken back is typed out."""


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    state: str
    commands: list[Command]


def load(run: OpenRun) -> Model:
    """The state and every command."""
    facts = run.facts()
    stamp = Stamp(facts.get("updated_at"), facts.get("iteration"), facts.get("policy_version"))
    return Model(stamp, facts["state"], commands.history(run.folder.path))


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(lambda: load(run), lambda model: model.stamp)
    dialogs = tag("div")  # outside the panels, which are drawn anew

    def panels() -> None:
        board.panel(
            "Commands",
            lambda model: _buttons(visit, run, model, dialogs),
            wide=True,
            of=lambda model: model.state,
        )
        board.panel("What became of them", _history, wide=True, of=lambda model: model.commands)

    await board.start(panels)


def _buttons(visit: Visit, run: OpenRun, model: Model, dialogs: Any) -> None:
    reason = ""
    if visit.principal.role != "admin":
        reason = "Only a key of role admin commands; yours looks."
    elif model.state in ENDED:
        reason = f"The run is {model.state}: nobody is there to obey."
    elif model.state == "silent":
        tag("p", "The run is silent; a command that it does not see in 60 s times out.", "quiet")
    with tag("div", classes="actions"):
        for type, (title, effect) in ACTIONS.items():
            with tag("div"):
                button = tag("button", title, "danger" if type in CONFIRMED else "", type="button")
                button.props["disabled"] = bool(reason)
                button.on("click", lambda type=type: _ask(visit, run, type, dialogs))
                tag("span", effect, "quiet")
    if reason:
        tag("p", reason, "quiet")


async def _ask(visit: Visit, run: OpenRun, type: str, dialogs: Any) -> None:
    with dialogs:
        if type in CONFIRMED and not await _is_confirmed(run, type):
            return
        await _request(visit, run, type)


async def _request(visit: Visit, run: OpenRun, type: str) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not command (any more).", type="negative")
        return
    body = CommandIn.model_validate({"type": type})
    try:
        await asyncio.to_thread(request_once, run, body, principal.actor, secrets.token_hex(16))
    except Problem as problem:
        ui.notify(problem.detail, type="negative")
        return
    ui.notify(f"{type} is requested.", type="info")


async def _is_confirmed(run: OpenRun, type: str) -> bool:
    with ui.dialog() as dialog, tag("div", classes="dialog panel"):
        tag("h2", f"{type.capitalize()} {run.id}?")
        tag("p", f"Type {type} to go on.")
        field = ui.input(label=f"type {type}").props("autofocus outlined dense")
        with tag("div", classes="actions"):
            ui.button("Cancel", on_click=lambda: dialog.submit("")).props("flat no-caps")
            ui.button("Go on", on_click=lambda: dialog.submit(field.value)).props("no-caps")
        field.on("keydown.enter", lambda: dialog.submit(field.value))
    answer = await dialog
    dialog.delete()
    return answer == type


def _history(model: Model) -> None:
    if not model.commands:
        empty("None yet.")
        return
    rows = [
        [
            command.type,
            lambda command=command: chip(command.state, TONES.get(command.state, "calm")),
            command.by or "command line",
            clock(command.times["requested"]),
            _took(command),
            command.reason or "-",
        ]
        for command in model.commands
    ]
    table(
        ("command", "state", "by", "requested", "after", "reason"), rows, "Commands, newest first"
    )


def _took(command: Command) -> str:
    end = command.times.get(command.state)
    if end is None or command.state == "requested":
        return "-"
    return f"{end - command.times['requested']:.1f} s"
