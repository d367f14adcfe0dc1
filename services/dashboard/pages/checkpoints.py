"""Checkpoints: what is saved, how good it is, how it is used; two evaluations side by side."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from services.dashboard.elements import chip, choice, copy_button, empty, form, table, tag
from services.dashboard.frame import Visit
from services.dashboard.numbers import short, size
from services.dashboard.pages.checkpoint_jobs import buttons, jobs_panel
from services.dashboard.panels import Board, Stamp, clock
from services.dashboard.pictures import address
from services.run_store.forms import LearnedLabels
from services.run_store.promoted import Promotion, promote, promoted
from services.runs_api.checkpoints import Checkpoint, checkpoints_of
from services.runs_api.evaluations import Sheet
from services.runs_api.jobs import Job, history, store_of
from services.runs_api.library import OpenRun


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    checkpoints: list[Checkpoint]
    promotion: Promotion | None
    sheets: list[Sheet]
    jobs: list[Job]
    drawn: frozenset[str]
    """Digests of those of the jobs' pictures whose files are there."""


def load(run: OpenRun) -> Model:
    """Everything that is on the disk."""
    with run.numbers() as numbers:
        found = checkpoints_of(run.folder.checkpoints, numbers)
    stamp = Stamp(None)
    if found:
        stamp = Stamp(found[0].written_at, found[0].iteration, found[0].policy_version)
    jobs, store = history(run.folder), store_of(run.folder)
    digests = (digest for job in jobs for digest in job.images)
    drawn = frozenset(digest for digest in digests if store.path(digest).exists())
    return Model(stamp, found, promoted(run.folder), run.sheets.all(), jobs, drawn)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(run))
    dialogs = tag("div")  # outside the panels, which are drawn anew
    sheets = [sheet.label for sheet in await asyncio.to_thread(run.sheets.all)]
    before = visit.query.get("before") or ("before" if "before" in sheets else "")
    after = visit.query.get("after") or (sheets[-1] if sheets else "")

    def panels() -> None:
        board.panel(
            "Checkpoints",
            lambda model: _list(visit, run, model, dialogs),
            wide=True,
            of=lambda model: (model.checkpoints, model.promotion),
        )
        board.panel(
            "Exports and samples",
            lambda model: jobs_panel(visit, run, model.jobs, model.drawn),
            wide=True,
            of=lambda model: (model.jobs, model.drawn),
        )
        board.panel(
            "The same held-out prompts and noise, twice",
            lambda model: _pair(run, model, before, after),
            wide=True,
            of=lambda model: model.sheets,
        )

    await board.start(panels)


async def _promote(visit: Visit, run: OpenRun, name: str) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not promote (any more).", type="negative")
        return

    def mark() -> None:
        with run.commanding():
            promote(run.folder, name, principal.actor)

    try:
        await asyncio.to_thread(mark)
    except ValueError as error:
        ui.notify(str(error), type="negative")
        return
    ui.notify(f"{name} is promoted; the run keeps it.", type="positive")


def _promotion(visit: Visit, run: OpenRun, model: Model, name: str) -> None:
    promotion = model.promotion
    if promotion is not None and promotion.checkpoint == name:
        chip("promoted", "good")
        tag("span", f" {clock(promotion.at)}, {promotion.by or 'command line'}", "quiet")
        return
    button = tag("button", "Promote", "plain", type="button", aria_label=f"Promote {name}")
    button.props["disabled"] = visit.principal.role != "admin"
    button.on("click", lambda: _promote(visit, run, name))


def _list(visit: Visit, run: OpenRun, model: Model, dialogs: Any) -> None:
    if not model.checkpoints:
        empty("None yet; Run control asks for one.")
        return
    names = list(dict.fromkeys(n for c in model.checkpoints for n in c.scores if "/" not in n))
    rows = [
        [
            partial(tag, "span", checkpoint.name, "whole"),
            str(checkpoint.iteration),
            f"v{checkpoint.policy_version}",
            clock(checkpoint.written_at),
            size(checkpoint.num_bytes),
            _labels(checkpoint.labels),
            lambda name=checkpoint.name: _promotion(visit, run, model, name),
            lambda name=checkpoint.name: buttons(visit, run, name, dialogs),
            *(partial(tag, "span", short(checkpoint.scores.get(name)), "whole") for name in names),
        ]
        for checkpoint in model.checkpoints
    ]
    about = ("checkpoint", "iteration", "policy", "written", "size", "labels", "promoted", "use")
    table((*about, *names), rows, "Checkpoints")
    for checkpoint in model.checkpoints:
        with tag("details"):
            tag("summary", f"Files and commands of {checkpoint.name}")
            folder = checkpoint.path.absolute()
            copy_button(str(folder), f"Copy the path of {checkpoint.name}")
            commands = (
                f"tdm-r1 export {folder} --out my_generator\n"
                f"tdm-r1 sample {folder} --prompt '...' --num-images 4"
            )
            tag("pre", commands, "log", tabindex="0")
            files = [[f.name, size(f.num_bytes), f.sha256] for f in checkpoint.files]
            table(("file", "size", "SHA-256"), files, f"Files of {checkpoint.name}")


def _labels(learned: LearnedLabels | None) -> str:
    if learned is None:
        return "not recorded"
    newest = f", up to label {learned.newest_label}" if learned.newest_label else ""
    return f"{learned.votes:g} of {learned.answers} groups{newest}" if learned.answers else "none"


def _pair(run: OpenRun, model: Model, before: str, after: str) -> None:
    known = {sheet.label: sheet for sheet in model.sheets}
    if not known:
        empty("No evaluation yet (evaluation.every, prompts.heldout).")
        return
    options = {label: label for label in known}
    with form("Which evaluations"):
        choice("before", "Left", options, before)
        choice("after", "Right", options, after)
        tag("button", "Show", type="submit")
    with tag("div", classes="pair"):
        for label in (before, after):
            sheet = known.get(label)
            if sheet is None:
                continue
            with tag("figure"):
                source = address(run, sheet.digest, "orig")
                tag("img", src=source, alt=f"sheet of evaluation {label}", loading="lazy")
                tag("figcaption", f"{label}, {clock(sheet.written_at)}")
