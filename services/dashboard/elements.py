"""Elements of a page. Text goes out as text, whatever it contains; nothing here takes markup."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from services.dashboard.plain_text import plain

DOUBLE_CLICK_S = 0.3
SPOKEN = ("alt", "title", "aria_label")
"""Attributes that people are shown or told."""


def tag(kind: str, text: str = "", classes: str = "", **attributes: Any) -> Any:
    """An element; `aria_label` is aria-label, `for_` is for, None is left out."""
    element = TextElement(tag=kind, text=plain(text)) if text else ui.element(kind)
    if classes:
        element.classes(classes)
    for key, value in attributes.items():
        if value is not None and value is not False:
            shown = plain(value) if isinstance(value, str) and key in SPOKEN else value
            element.props[key.rstrip("_").replace("_", "-")] = shown
    return element


def link(text: str, address: str, classes: str = "", **attributes: Any) -> Any:
    """A link to a page of ours."""
    return tag("a", text, classes, href=address, **attributes)


def button(text: str, pressed: Callable[[], Any], classes: str = "", **attributes: Any) -> Any:
    """A button of our own looks."""
    made = tag("button", text, classes, type="button", **attributes)
    # The second half of a double click is not meant.
    made.on("click", pressed, throttle=DOUBLE_CLICK_S, trailing_events=False)
    return made


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> None:
    """A table of texts; a cell that can be called draws itself."""
    with (
        tag("div", classes="scroll", tabindex="0", role="region", aria_label=caption),
        tag("table"),
    ):
        tag("caption", caption, "hidden-visually")
        with tag("thead"), tag("tr"):
            for name in head:
                tag("th", name, scope="col")
        with tag("tbody"):
            for row in rows:
                with tag("tr"):
                    for cell in row:
                        _cell(cell)


def _cell(cell: Any) -> None:
    if callable(cell):
        with tag("td"):
            cell()
    else:
        tag("td", str(cell) if cell is not None else "-")


def tile(name: str, value: str, note: str = "", tone: str = "") -> None:
    """One number and what it is."""
    with tag("div", classes=f"tile {tone}".strip()):
        tag("dt", name)
        tag("dd", value)
        if note:
            tag("dd", note, "note")


def bars(parts: Iterable[tuple[str, float, str]]) -> None:
    """Parts of a whole: name, share and what is said of it."""
    with tag("dl", classes="bars"):
        for name, share, text in parts:
            tag("dt", name)
            with tag("dd"):
                tag("span", classes="bar-fill", style=f"width: {100 * share:.1f}%")
                tag("span", text, "bar-text")


def chip(text: str, tone: str) -> None:
    """A state, told by its word; the colour only repeats it."""
    tag("span", text, f"chip {tone}")


def empty(text: str) -> None:
    """What a panel says instead of showing nothing."""
    tag("p", text, "quiet")


def copy_button(text: str, name: str) -> None:
    """Puts `text` where the browser's Paste finds it (live.js)."""
    tag("button", "Copy", "plain", type="button", aria_label=name, data_copy=text)


@contextmanager
def form(label: str, id: str | None = None) -> Iterator[None]:
    """Fields that become the address's query."""
    with tag("form", classes="filters", method="get", aria_label=label, id=id):
        yield


def choice(name: str, label: str, options: dict[str, str], chosen: str | None) -> None:
    """A field with few values; the empty one is no condition."""
    _select(name, label, options, (chosen or "",))


def choices(name: str, label: str, options: Sequence[str], chosen: Container[str]) -> None:
    """A field with several values at once."""
    _select(name, label, {option: option for option in options}, chosen, multiple=True, size=3)


def _select(
    name: str, label: str, options: dict[str, str], chosen: Container[str], **attributes: Any
) -> None:
    with tag("label", classes="field"):
        tag("span", label)
        with tag("select", name=name, **attributes):
            for value, text in options.items():
                tag("option", text, value=value, selected=value in chosen)


def entry(name: str, label: str, value: Any, kind: str = "text", **attributes: Any) -> None:
    """A field for a text or a number."""
    with tag("label", classes="field"):
        tag("span", label)
        field = tag("input", name=name, type=kind, **attributes)
        if value is not None:
            # As its attribute: the property would be set again with every news of the page, over
            # what somebody is typing.
            field.props["^value"] = str(value)
