"""Audit: who did what, of everything or of one run, for admins."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from services.dashboard.data_tables import Table, save
from services.dashboard.elements import button, chip, empty, entry, form, link, table, tag
from services.dashboard.frame import TONES, Shell, Visit, complaining, outline
from services.dashboard.panels import Board, Stamp, clock
from services.dashboard.trail import RUNS, Entry, Trail, read_trail
from services.labels.audit import AuditFilter
from services.runs_api.library import OpenRun

PER_PAGE = 100
SHORT = 20
"""Characters of what stays on one line: an action, a checkpoint; a key's id does not."""
FIELDS = ("actor", "action", "object", "since")
TITLE = "Who did what"


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    trail: Trail | None
    """None for who is no admin."""


def load(
    shell: Shell, run: OpenRun | None, wanted: AuditFilter, cursor: str | None, is_admin: bool
) -> Model:
    """The log as it is now."""
    stamp = Stamp(time.time())
    if not is_admin:
        return Model(stamp, None)
    runs = [run] if run else shell.library.all()
    folders = (each.folder for each in runs)
    return Model(stamp, read_trail(shell.admin, folders, wanted, cursor, PER_PAGE))


def read_query(query: Mapping[str, str], run_id: str | None) -> AuditFilter:
    """The filters of an address; ValueError where one cannot be meant."""
    actor, action, object, since = (query.get(name, "").strip() or None for name in FIELDS)
    return AuditFilter(actor, action, object, _time(since), run_id)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"since={text[:40]!r} is no time; write 2026-01-31T18:00") from error


async def draw(visit: Visit, run: OpenRun | None) -> None:
    """Its panel, of a run or of everything."""
    is_admin = visit.principal.role == "admin"
    wanted = read_query(visit.query, run.id if run else None)
    cursor = visit.query.get("before") or None
    source = run.id if run else "all-runs"
    board = Board(source, partial(load, visit.shell, run, wanted, cursor, is_admin))
    if is_admin:
        if run is not None:
            with tag("p", classes="quiet"):
                link("Everything, of all runs and keys", "/audit")
        _filters(visit.query)
    fill = partial(_list, partial(_address, visit.query), source)
    await board.start(lambda: board.panel(TITLE, fill, wide=True, of=lambda model: model.trail))


def register(shell: Shell) -> None:
    """The page of everything, at /audit."""

    @ui.page("/audit", response_timeout=30)
    async def page(request: Request) -> None:
        visit = Visit.of(shell, request)
        with outline(visit, None, "Audit"), complaining():
            await draw(visit, None)


def _filters(query: Mapping[str, str]) -> None:
    with form("Which entries"):
        for name, label in (("actor", "Who"), ("action", "Did what"), ("object", "To what")):
            entry(name, label, query.get(name))
        entry("since", "Since (UTC)", query.get("since"), kind="datetime-local")
        tag("button", "Show", type="submit")


def _address(query: Mapping[str, str], **changes: str) -> str:
    """The page's with the same filters and others."""
    kept = {name: query[name] for name in FIELDS if query.get(name)}
    return "?" + urlencode(kept | changes)


def _list(address: Callable[..., str], source: str, model: Model) -> None:
    trail = model.trail
    if trail is None:
        empty("Only an admin's key sees who did what; yours is of another role.")
        return
    for fault in trail.faults:
        tag("p", fault, role="alert")
    if not trail.entries:
        empty("Nothing of the kind is in the logs.")
    else:
        head = ("when", "who", "did what", "to what", "of", "outcome", "more")
        table(
            head,
            [_cells(address, source, each) for each in trail.entries],
            f"{TITLE}, newest first",
        )
    with tag("div", classes="pager"):
        link("Newest", address())
        if trail.cursor:
            link("Older", address(before=trail.cursor))
        if trail.entries:
            save_it = partial(save, source, TITLE, _numbers(trail))
            button("CSV", save_it, "link", aria_label="These entries as a CSV file")


def _cells(address: Callable[..., str], source: str, found: Entry) -> list[Any]:
    def linked(name: str, value: str, more: str | None) -> Callable[[], None]:
        def show() -> None:
            link(value, address(**{name: value}), "whole" if len(value) <= SHORT else "")
            if more is not None:
                tag("div", more, "quiet")

        return show

    def where() -> None:
        if found.log == RUNS and found.where != source:
            link(found.where, f"/runs/{found.where}")
        else:
            tag("span", "this run" if found.log == RUNS else found.where)

    return [
        partial(tag, "span", clock(found.at.timestamp()), "whole"),
        linked("actor", found.actor, found.actor_name),
        linked("action", found.action, None),
        linked("object", found.object, found.object_name),
        where,
        lambda: chip(found.outcome, TONES.get(found.outcome, "calm")),
        found.detail or "-",
    ]


def _numbers(trail: Trail) -> Table:
    head = ("at", "actor", "actor_name", "action", "object", "object_name", "of", "outcome", "more")
    rows = [
        [
            each.at.isoformat(),
            each.actor,
            each.actor_name,
            each.action,
            each.object,
            each.object_name,
            each.where,
            each.outcome,
            each.detail,
        ]
        for each in trail.entries
    ]
    return Table(head, rows)
