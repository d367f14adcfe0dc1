"""Forms of the Keys page: a key or an invite is made, and its secret shown once."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, get_args

from nicegui import ui
from nicegui.events import GenericEventArguments
from pydantic import ValidationError

from services.dashboard.dialogs import show_once
from services.dashboard.elements import choice, entry, tag
from services.dashboard.frame import Visit
from services.dashboard.panels import Board
from services.dashboard.plain_text import plain
from services.labels.api_keys import DEFAULT_DAYS
from services.labels.schemas.annotators import NewAnnotator, NewInvite
from services.labels.schemas.keys import NewKey
from services.web.auth import Principal
from services.web.keys import SCOPES

SEND_FIELDS = """(event) => {
    event.preventDefault();
    emit(Object.fromEntries(new FormData(event.target)));
}"""
"""What is typed in comes over the page's own socket, and never into an address."""
ROLES = ("viewer", "service", "annotator", "admin")
MAX_NAME = 200
LOST = "It was made, and its secret was lost on the way: revoke it and make another."

Fields = Mapping[str, str]
Made = tuple[str, str | None, str, tuple[str, ...]]
"""Title, secret, its name, and what to know of it."""


def key_form(visit: Visit, board: Board[Any], dialogs: Any) -> None:
    """What a key is made of."""

    def make(fields: Fields, by: Principal) -> Made:
        made = visit.shell.admin.create_key(read_key(fields), by)
        note = "It is shown this once and kept nowhere: put it where secrets are kept."
        return f"The key of {made.name}", made.key, "the key", (note,)

    with _form(visit, board, dialogs, "Make a key", make):
        entry("name", "Name", None, required=True, maxlength=MAX_NAME, autocomplete="off")
        choice("role", "Role", {role: role for role in ROLES}, "viewer")
        days = {"min": 0, "max": 3650, "step": "any"}
        entry("days", "Days (empty: for ever)", DEFAULT_DAYS, kind="number", **days)
        entry("annotator_id", "Labels as (empty: a new person)", None, autocomplete="off")
        with tag("fieldset"):
            tag("legend", "Scopes")
            for scope, role in SCOPES.items():
                with tag("label", classes="tick"):
                    tag("input", type="checkbox", name=f"scope {scope}")
                    tag("span", f"{scope} (role {role})")


def read_key(fields: Fields) -> NewKey:
    """What was typed in; ValueError where that can be no key."""
    days = fields.get("days", "").strip()
    return _checked(
        NewKey,
        name=fields.get("name", "").strip(),
        role=fields.get("role"),
        scopes=[scope for scope in SCOPES if fields.get(f"scope {scope}")],
        annotator_id=fields.get("annotator_id", "").strip() or None,
        expires_in_days=_number(days) if days else None,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"days={text[:40]!r} is no number; leave it empty for ever") from error


def invite_form(visit: Visit, board: Board[Any], dialogs: Any) -> None:
    """Who is invited."""

    def make(fields: Fields, by: Principal) -> Made:
        person = _checked(NewAnnotator, name=fields.get("name", "").strip())
        role = _checked(NewInvite, role=fields.get("role")).role
        made = visit.shell.admin.invite(person.name, role, by)
        notes = (
            f"It makes one browser {person.name}'s, once, until {made.expires_at:%Y-%m-%d %H:%M} "
            "UTC; hand it to them alone.",
            "Where a proxy stands before the label service, put its address in front.",
        )
        return f"The link for {person.name}", made.url, "the link", notes

    tag("p", "A link to the label page, for somebody who is not there yet.", "quiet")
    with _form(visit, board, dialogs, "Invite", make):
        entry("name", "Name", None, required=True, maxlength=MAX_NAME, autocomplete="off")
        roles = get_args(NewInvite.model_fields["role"].annotation)
        choice("role", "Role", {role: role for role in roles}, "annotator")


def _checked(form: Any, **values: Any) -> Any:
    try:
        return form.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from error


@contextmanager
def _form(
    visit: Visit,
    board: Board[Any],
    dialogs: Any,
    title: str,
    make: Callable[[Fields, Principal], Made],
) -> Iterator[None]:
    """Fields and a button; what `make` refuses is said below them."""
    busy = False

    async def send(event: GenericEventArguments) -> None:
        nonlocal busy
        if busy or not isinstance(event.args, dict):
            return
        busy = True  # a second click is no second key
        try:
            fields = {str(name): str(value) for name, value in event.args.items()}
            said.text = plain(await _make(visit, dialogs, partial(make, fields)))
        finally:
            busy = False
        if not said.text:
            ui.run_javascript(f"getHtmlElement({fields_of.id})?.reset()")
            await board.refresh()

    with tag("form", classes="filters", aria_label=title) as fields_of:
        yield
        tag("button", title, type="submit")
    said = tag("p", " ", "refusal", role="alert")
    fields_of.on("submit", send, js_handler=SEND_FIELDS)


async def _make(visit: Visit, dialogs: Any, make: Callable[[Principal], Made]) -> str:
    """Why it was not made; empty where it was."""
    principal = await visit.is_admin_still()
    if principal is None:
        return "Your key may not do this (any more)."
    try:
        title, secret, name, notes = await asyncio.to_thread(make, principal)
    except ValueError as error:
        return str(error)
    if secret is None:
        return LOST
    with dialogs:
        show_once(title, secret, name, notes)
    return ""
