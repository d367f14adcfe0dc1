"""Keys: who may use the label service and this dashboard; made, shown once, revoked by admins."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, get_args
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from services.dashboard.data_tables import Table, save
from services.dashboard.dialogs import typed_out
from services.dashboard.elements import button, chip, choice, empty, form, link, table, tag
from services.dashboard.frame import Shell, Visit, complaining, outline
from services.dashboard.label_admin import state_of
from services.dashboard.pages.key_forms import invite_form, key_form
from services.dashboard.panels import Board, Stamp, clock
from services.label_client.models import Key
from services.web.keys import Role

PER_PAGE = 50
SOON = timedelta(days=14)
TITLE = "Keys"
TONES = {"active": "good", "expired": "calm", "revoked": "bad"}
OWN = "They open this dashboard and the label service, to people and to programs."
LAST = (
    "It is the last active key of role admin: nobody who has a key can make another then. What "
    "remains is the machine itself: tdm-r1 keys create --role admin --name NAME. (The command "
    "tdm-r1 keys revoke does not ask; it only says so afterwards.)"
)
"""What to know before the way to every other key goes."""


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    keys: Sequence[Key]
    cursor: str | None
    """Of the page after it."""


def load(shell: Shell, role: Role | None, cursor: str | None) -> Model:
    """The keys as they are now."""
    keys, after = shell.admin.keys(role, cursor, PER_PAGE)
    return Model(Stamp(time.time()), keys, after)


def register(shell: Shell) -> None:
    """At /keys."""

    @ui.page("/keys", response_timeout=30)
    async def page(request: Request) -> None:
        visit = Visit.of(shell, request)
        with outline(visit, None, "Keys"), complaining():
            if visit.principal.role == "admin":
                await draw(visit)
            else:
                with tag("section", classes="panel", aria_label=TITLE):
                    empty("Only an admin's key sees and makes keys; yours is of another role.")


async def draw(visit: Visit) -> None:
    """Its panels, for an admin."""
    role = read_role(visit.query)
    cursor = visit.query.get("before") or None
    board = Board("keys", lambda: load(visit.shell, role, cursor))
    dialogs = tag("div")  # outside the panels, which are drawn anew
    revoke = partial(_ask, visit, board, dialogs)
    elsewhere = visit.shell.admin.elsewhere
    tag("p", _whose(elsewhere), "quiet")
    with tag("p", classes="links"):
        link("Who did what", "/audit")
    with form("Which keys"):
        roles = {"": "of all roles"} | {name: name for name in get_args(Role)}
        choice("role", "Role", roles, role)
        tag("button", "Show", type="submit")

    def panels() -> None:
        fill = partial(_list, revoke, visit.query)
        board.panel(TITLE, fill, wide=True, of=_seen)
        same = lambda model: "the same"  # noqa: E731
        board.panel("Make a key", lambda model: key_form(visit, board, dialogs), of=same)
        board.panel("Invite a person", lambda model: invite_form(visit, board, dialogs), of=same)

    await board.start(panels)


def read_role(query: Mapping[str, str]) -> Role | None:
    """The filter of an address; ValueError where there is no such role."""
    asked = query.get("role") or None
    found: Role | None = next((role for role in get_args(Role) if role == asked), None)
    if asked != found:
        raise ValueError(f"role={asked!r} is none; allowed: {', '.join(get_args(Role))}")
    return found


def _whose(elsewhere: str) -> str:
    if not elsewhere:
        return OWN
    return (
        f"Keys of the label service at {elsewhere}. Those by which people sign in here are in this "
        "dashboard's own database: tdm-r1 keys list."
    )


def _seen(model: Model) -> Any:
    """What a row says of a key, which time changes too."""
    now = datetime.now(UTC)
    return model.cursor, [(key, _state(key, now)) for key in model.keys]


def _state(key: Key, now: datetime) -> tuple[str, str]:
    """A word, and how long it lasts where that is not long."""
    state = state_of(key, now)
    if state != "active" or key.expires_at is None or key.expires_at - now > SOON:
        return state, ""
    left = key.expires_at - now
    return state, f"expires in {left.days} d" if left.days else "expires within a day"


def _list(revoke: Callable[[Key], Any], query: Mapping[str, str], model: Model) -> None:
    if not model.keys:
        empty("No key of the kind.")
    else:
        now = datetime.now(UTC)
        head = ("name", "role", "scopes", "state", "made", "expires", "last used", "end it")
        table(head, [_cells(revoke, key, now) for key in model.keys], "Keys, newest first")
    kept = {"role": query["role"]} if query.get("role") else {}
    with tag("div", classes="pager"):
        link("Newest", f"?{urlencode(kept)}")
        if model.cursor:
            link("Older", f"?{urlencode(kept | {'before': model.cursor})}")
        save_it = partial(save, "tdm-r1", TITLE, _numbers(model))
        button("CSV", save_it, "link", aria_label="These keys as a CSV file")


def _cells(revoke: Callable[[Key], Any], key: Key, now: datetime) -> list[Any]:
    state, soon = _state(key, now)

    def name() -> None:
        tag("div", key.name)
        link(key.key_id, f"/audit?object={key.key_id}", "quiet whole")

    def standing() -> None:
        chip(state, TONES[state])
        if soon:
            chip(soon, "warn")

    def end() -> None:
        if key.revoked_at is None:
            what = f"Revoke {key.name} ({key.key_id})"
            button("Revoke", partial(revoke, key), "plain", aria_label=what)
        else:
            tag("span", _day(key.revoked_at), "quiet")

    person = f"labels as {key.annotator_id}" if key.annotator_id else ""
    return [
        name,
        partial(tag, "span", key.role, "whole"),
        ", ".join(filter(None, [*key.scopes, person])) or "-",
        standing,
        _day(key.created_at),
        "never" if key.expires_at is None else _day(key.expires_at),
        "never" if key.last_used_at is None else _day(key.last_used_at),
        end,
    ]


def _day(time: datetime) -> str:
    return clock(time.timestamp())


def _numbers(model: Model) -> Table:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    now = datetime.now(UTC)
    rows = [
        [
            key.key_id,
            key.name,
            key.role,
            " ".join(key.scopes),
            key.annotator_id,
            state_of(key, now),
            *(moment and moment.isoformat() for moment in (getattr(key, name) for name in times)),
        ]
        for key in model.keys
    ]
    return Table(("key_id", "name", "role", "scopes", "annotator_id", "state", *times), rows)


async def _ask(visit: Visit, board: Board[Model], dialogs: Any, key: Key) -> None:
    admin = visit.shell.admin
    try:
        admins = await asyncio.to_thread(admin.live_admins)
    except ValueError as error:
        ui.notify(str(error), type="negative")
        return
    is_last = admins == {key.key_id}
    notes = [f"{key.name} ({key.role}, {key.key_id}) is of no use from then on, for good."]
    if visit.principal.key_id == f"key:{key.key_id}":
        notes.append("It is the key that you are signed in with: this page ends, too.")
    if key.key_id == admin.own_key_id:
        notes.append("It is the key of this dashboard there: it shows nothing of labels then.")
    notes += [LAST] if is_last else []
    with dialogs:
        word = "revoke the last admin key" if is_last else "revoke"
        if await typed_out("Revoke a key?", word, notes) is None:
            return
        await _revoke(visit, key)
        await board.refresh()


async def _revoke(visit: Visit, key: Key) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not revoke keys (any more).", type="negative")
        return
    try:
        await asyncio.to_thread(visit.shell.admin.revoke_key, key.key_id, principal)
    except ValueError as error:
        ui.notify(str(error), type="negative")
        return
    ui.notify(f"{key.name} is revoked.", type="positive")
