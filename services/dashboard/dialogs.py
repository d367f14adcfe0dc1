"""Dialogs: what cannot be taken back is typed out, and what is shown once is gone when closed."""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from services.dashboard.elements import button, copy_button, tag
from services.dashboard.plain_text import plain

FADED_S = 1.0


async def answered(dialog: ui.dialog) -> Any:
    """What a dialog is answered; None where it is closed. It goes once it has faded out and given
    the focus back to where it was opened."""
    answer = await dialog
    ui.timer(FADED_S, dialog.delete, once=True)
    return answer


async def typed_out(
    title: str, word: str, notes: Sequence[str] = (), label: str = ""
) -> str | None:
    """What was typed in under `label`, if any, once `word` was typed out; None if it was not."""
    with ui.dialog() as dialog, tag("div", classes="dialog panel"):
        dialog.props["aria-label"] = plain(title)
        tag("h2", title)
        for note in notes:
            tag("p", note)
        value = ui.input(label=label).props("autofocus outlined dense") if label else None
        tag("p", f"Type {word} to go on.")
        typed = ui.input(label=f"type {word}").props("outlined dense")
        if value is None:
            typed.props("autofocus")

        def go_on() -> None:
            if (typed.value or "").strip() != word:
                ui.notify(f"Nothing is done yet: type {word}.", type="warning")
                return
            dialog.submit("" if value is None else (value.value or "").strip())

        with tag("div", classes="actions"):
            button("Cancel", lambda: dialog.submit(None), "plain")
            button("Go on", go_on)
        typed.on("keydown.enter", go_on)
    return await answered(dialog)


def show_once(title: str, secret: str, name: str, notes: Sequence[str]) -> None:
    """Show a secret until its reader closes the dialog or leaves the page (live.js); nothing else
    keeps it. `name` is what the button copies."""
    with ui.dialog().props("persistent") as dialog, tag("div", classes="dialog panel secret"):
        dialog.props["aria-label"] = plain(title)
        tag("h2", title)
        with tag("div", classes="secret-text", data_secret="true") as shown:
            tag("code", secret)
            copy_button(secret, f"Copy {name}")
        for note in notes:
            tag("p", note)

        def close() -> None:
            shown.clear()  # not only once it has faded out
            dialog.close()

        with tag("div", classes="actions"):
            button("I have kept it", close)
    dialog.on("hide", dialog.delete)  # it has given the focus back by then
    dialog.open()
