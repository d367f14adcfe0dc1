"""What people have a checkpoint do, and what became of it: exports and samples."""

import asyncio
import secrets
from collections.abc import Container
from functools import partial
from typing import Any

from nicegui import ui
from pydantic import ValidationError

from services.dashboard.dialogs import answered
from services.dashboard.elements import chip, copy_button, empty, table, tag
from services.dashboard.frame import TONES, Visit
from services.dashboard.panels import clock
from services.dashboard.pictures import picture
from services.runs_api.jobs import MOST_IMAGES, ExportIn, Job, SampleIn
from services.runs_api.library import OpenRun
from services.web.problems import Problem


def buttons(visit: Visit, run: OpenRun, name: str, dialogs: Any) -> None:
    """Export and Sample; they work for admins, where jobs are on."""

    async def ask_for_sample() -> None:
        with dialogs:
            asked = await _prompted(name)
            if asked is not None:
                await _start(visit, run, name, asked)

    actions = (("Export", lambda: _start(visit, run, name, ExportIn())), ("Sample", ask_for_sample))
    for title, act in actions:
        button = tag("button", title, "plain", type="button", aria_label=f"{title} {name}")
        button.props["disabled"] = visit.principal.role != "admin" or not visit.shell.jobs.is_on
        button.on("click", act)


async def _start(visit: Visit, run: OpenRun, name: str, asked: ExportIn | SampleIn) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not export or sample (any more).", type="negative")
        return
    key = secrets.token_hex(16)
    start = visit.shell.jobs.start
    try:
        job = await asyncio.to_thread(start, run.folder, name, asked, principal.actor, key)
    except (Problem, ValueError, OSError) as error:
        ui.notify(error.detail if isinstance(error, Problem) else str(error), type="negative")
        return
    ui.notify(f"{job.kind} of {name} has begun.", type="info")


async def _prompted(name: str) -> SampleIn | None:
    """What shall be drawn; None if nothing or nothing that can be."""
    with ui.dialog() as dialog, tag("div", classes="dialog panel"):
        tag("h2", f"Sample {name}")
        prompt = ui.input(label="prompt").props("autofocus outlined dense")
        number = ui.number(label=f"images, 1 to {MOST_IMAGES}", value=4).props("outlined dense")
        with tag("div", classes="actions"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).props("flat no-caps")
            ui.button("Draw", on_click=lambda: dialog.submit(True)).props("no-caps")
        prompt.on("keydown.enter", lambda: dialog.submit(True))
    if not await answered(dialog):
        return None
    try:
        asked = {"prompt": prompt.value or "", "num_images": number.value}
        return SampleIn.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        ui.notify(f"{first['loc'][0]}: {first['msg']}", type="negative")
        return None


def jobs_panel(visit: Visit, run: OpenRun, jobs: list[Job], there: Container[str]) -> None:
    """Every job of the run; pictures whose files are `there`."""
    if not visit.shell.jobs.is_on:
        text = "Jobs are off here: this dashboard listens beyond loopback, and its settings lack "
        tag(
            "p",
            text + "`jobs: true`. The commands of each checkpoint are below its files.",
            "quiet",
        )
    if not jobs:
        empty("None yet.")
        return
    rows = [
        [
            partial(tag, "span", job.kind, "whole"),
            partial(tag, "span", job.checkpoint, "whole"),
            lambda job=job: chip(job.state, TONES.get(job.state, "calm")),
            job.by,
            clock(job.started_at),
            "-" if job.ended_at is None else f"{job.ended_at - job.started_at:.1f} s",
            lambda job=job: _outcome(run, job, there),
        ]
        for job in jobs
    ]
    head = ("job", "checkpoint", "state", "by", "since", "took", "outcome")
    table(head, rows, "Exports and samples, newest first")


def _outcome(run: OpenRun, job: Job, there: Container[str]) -> None:
    if isinstance(job.asked, SampleIn):
        tag("p", job.asked.prompt)
    if job.reason:
        tag("p", job.reason)
    elif job.kind == "export" and job.state == "done":
        path = str(run.folder.path.absolute() / job.out)
        tag("code", path)
        copy_button(path, f"Copy the path of the export of {job.checkpoint}")
    elif isinstance(job.asked, SampleIn):
        with tag("div", classes="strip"):
            for number, digest in enumerate(job.images):
                picture(run, digest, f"image {number} of: {job.asked.prompt}", there)
