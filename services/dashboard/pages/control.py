"""Run control: commands through the run's durable inbox, each with its outcome."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from services.dashboard.dialogs import typed_out
from services.dashboard.elements import button, chip, empty, table, tag
from services.dashboard.frame import TONES, Visit
from services.dashboard.numbers import short
from services.dashboard.panels import Board, Stamp, clock
from services.run_store import commands
from services.run_store.arguments import LIVE, LiveParameter
from services.run_store.commands import Command
from services.run_store.run_folder import ENDED
from services.runs_api.library import OpenRun
from services.runs_api.live_values import live_values
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
"""What cannot be taken back is typed out; so is what changes a run, with its value."""


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    state: str
    commands: list[Command]
    values: dict[str, float | None]
    """Live parameters by key."""
    pools: dict[str, Mapping[str, Any]]
    """Workers of rollout, and of rewards by their names."""


def load(run: OpenRun) -> Model:
    """The state and every command."""
    facts = run.facts()
    stamp = Stamp(facts.get("updated_at"), facts.get("iteration"), facts.get("policy_version"))
    return Model(
        stamp,
        facts["state"],
        commands.history(run.folder.path),
        live_values(run.folder, facts),
        facts.get("pools", {}),
    )


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(run))
    dialogs = tag("div")  # outside the panels, which are drawn anew

    def panels() -> None:
        board.panel(
            "Commands",
            lambda model: _buttons(visit, run, model, dialogs),
            wide=True,
            of=lambda model: (_hindrance(visit, model), model.state == "silent"),
        )
        board.panel(
            "Live parameters",
            lambda model: _values(visit, run, model, dialogs),
            wide=True,
            of=lambda model: (_hindrance(visit, model), model.values),
        )
        board.panel(
            "Rollout and reward workers",
            lambda model: _pools(visit, run, model, dialogs),
            wide=True,
            of=lambda model: (_hindrance(visit, model), model.pools),
        )
        board.panel("What became of them", _history, wide=True, of=lambda model: model.commands)

    await board.start(panels)


def _hindrance(visit: Visit, model: Model) -> str:
    """Why nobody here may command; empty where one may."""
    if visit.principal.role != "admin":
        return "Only a key of role admin commands; yours looks."
    if model.state in ENDED:
        return f"The run is {model.state}: nobody is there to obey."
    return ""


def _buttons(visit: Visit, run: OpenRun, model: Model, dialogs: Any) -> None:
    reason = _hindrance(visit, model)
    if not reason and model.state == "silent":
        tag("p", "The run is silent; a command that it does not see in 60 s times out.", "quiet")
    with tag("div", classes="actions"):
        for type, (title, effect) in ACTIONS.items():
            with tag("div"):
                ask = partial(_ask, visit, run, type, dialogs)
                button(title, ask, "danger" if type in CONFIRMED else "", disabled=bool(reason))
                tag("span", effect, "quiet")
    if reason:
        tag("p", reason, "quiet")


def _values(visit: Visit, run: OpenRun, model: Model, dialogs: Any) -> None:
    def change(parameter: LiveParameter) -> None:
        note = f"{parameter.key} is {short(model.values[parameter.key], 5)}; allowed "
        note += f"{parameter.allowed}. It holds from the next iteration on."
        ask = partial(_ask_value, visit, run, "set", note, dialogs)
        _change_button(
            visit, model, parameter.key, lambda: ask(lambda value: {parameter.key: value})
        )

    rows = [
        [
            parameter.key,
            parameter.what,
            short(model.values[parameter.key], 5),
            parameter.allowed,
            lambda parameter=parameter: change(parameter),
        ]
        for parameter in LIVE.values()
    ]
    table(("parameter", "is", "now", "allowed", "set"), rows, "Live parameters")
    tag("p", "A run of which something was set repeats only if it is set again.", "quiet")


def _pools(visit: Visit, run: OpenRun, model: Model, dialogs: Any) -> None:
    if not model.pools:
        empty("The run has not said yet who works for it.")
        return

    def change(name: str, pool: Mapping[str, Any]) -> None:
        if pool["fewest"] == pool["most"]:
            tag("span", "fixed", "quiet")
            return
        note = f"{pool['fewest']} to {pool['most']} workers of {name}"
        if pool.get("automatic", True):
            note += ", or as many as its queue asks for: auto"
        ask = partial(_ask_value, visit, run, "scale", note, dialogs)
        _change_button(
            visit, model, name, lambda: ask(lambda value: {"pool": name, "workers": value})
        )

    rows = [
        [
            name,
            str(pool["workers"]),
            "as many as its queue asks for" if pool["held"] is None else f"{pool['held']} held",
            f"{pool['fewest']} to {pool['most']}",
            lambda name=name, pool=pool: change(name, pool),
        ]
        for name, pool in model.pools.items()
    ]
    names = ("pool", "workers", "how many", "allowed", "scale")
    table(names, rows, "Rollout and reward workers")


def _change_button(visit: Visit, model: Model, what: str, ask: Callable[[], Any]) -> None:
    hindered = bool(_hindrance(visit, model))
    button("Change", ask, "plain", aria_label=f"Change {what}", disabled=hindered)


async def _ask(visit: Visit, run: OpenRun, type: str, dialogs: Any) -> None:
    with dialogs:
        if type in CONFIRMED and await _confirmed(run, type) is None:
            return
        await _request(visit, run, type)


async def _ask_value(
    visit: Visit,
    run: OpenRun,
    type: str,
    note: str,
    dialogs: Any,
    arguments: Callable[[str], dict[str, Any]],
) -> None:
    """Have a value and the command's word typed in, then ask the run."""
    with dialogs:
        value = await _confirmed(run, type, note, "new value")
        if value is not None:
            await _request(visit, run, type, arguments(value))


async def _request(
    visit: Visit, run: OpenRun, type: str, arguments: Mapping[str, Any] | None = None
) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not command (any more).", type="negative")
        return
    body = CommandIn.model_validate({"type": type, "arguments": arguments or {}})
    try:
        await asyncio.to_thread(request_once, run, body, principal.actor, secrets.token_hex(16))
    except (Problem, ValueError, OSError) as error:
        ui.notify(error.detail if isinstance(error, Problem) else str(error), type="negative")
        return
    ui.notify(f"{type} is requested.", type="info")


async def _confirmed(run: OpenRun, type: str, note: str = "", label: str = "") -> str | None:
    title = f"{type.capitalize()} {run.id}?"
    return await typed_out(title, type, (note,) if note else (), label)


def _history(model: Model) -> None:
    if not model.commands:
        empty("None yet.")
        return
    rows = [
        [
            _what(command),
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


def _what(command: Command) -> str:
    if command.type == "scale":
        return "scale " + " to ".join(map(str, command.arguments.values()))
    values = ", ".join(f"{key}={value}" for key, value in command.arguments.items())
    return f"{command.type} {values}".strip()


def _took(command: Command) -> str:
    end = command.times.get(command.state)
    if end is None or command.state == "requested":
        return "-"
    return f"{end - command.times['requested']:.1f} s"
