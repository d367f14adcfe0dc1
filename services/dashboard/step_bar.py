"""After which denoising step every image of a page is shown: one slider for all of them, and a link
a step, which does the same without a script. Both are in the address."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from nicegui import ui
from nicegui.events import GenericEventArguments

from services.dashboard.elements import link, tag
from services.dashboard.pages.rewards import number
from services.dashboard.pictures import step_name
from services.runs_api.group_index import Group


class StepBar:
    """Stays in place while the images are drawn anew, so that the arrow keys keep the slider."""

    def __init__(self, given: dict[str, str], form: str, redraw: Callable[[], None]) -> None:
        """`given` is the address's query, in which the step is kept; `form` the id of the one that
        sends it along; `redraw` shows the images after another step."""
        self._given, self._form, self._redraw = given, form, redraw
        self._names: list[str] = []
        self._links: list[Any] = []
        self._place = tag("nav", classes="tabs", aria_label="Denoising step")

    def show(self, groups: Sequence[Group]) -> int | None:
        """Offer the steps that these have; the one chosen, None for the last."""
        longest = max(groups, key=lambda group: group.num_steps, default=None)
        last = longest.num_steps if longest is not None else 1
        asked = number(self._given, "step")
        chosen = asked if asked is not None and 1 <= asked < last else last
        steps = range(1, last + 1) if last > 1 else ()
        names = [step_name(longest.sigmas, step, last) for step in steps] if longest else []
        if names != self._names:
            self._names = names
            self._draw(chosen)
        for step, each in enumerate(self._links, 1):
            each.props["aria-current"] = "true" if step == chosen else None
        if names:
            self._slider.props["aria-valuetext"] = names[chosen - 1]
        return chosen if chosen < last else None

    def _draw(self, chosen: int) -> None:
        self._place.clear()
        self._links.clear()
        if not self._names:
            return
        with self._place:
            about = {"name": "step", "form": self._form, "aria_label": "Denoising step"}
            with tag("div", classes="slider"):
                self._slider = tag("input", type="range", min=1, max=len(self._names), **about)
            self._slider.props["^value"] = chosen  # at first: then it is the hand's
            self._slider.on("input", self._choose, js_handler="(e) => emit(e.target.value)")
            for step, name in enumerate(self._names, 1):
                self._links.append(link(name, self._address(step)))

    def _choose(self, event: GenericEventArguments) -> None:
        step = number({"step": str(event.args)}, "step")
        if step is None or not 1 <= step <= len(self._names):
            return
        address = self._address(step)
        self._given["step"] = str(step)
        self._redraw()
        ui.navigate.history.replace(address)

    def _address(self, step: int) -> str:
        given = {key: value for key, value in self._given.items() if key != "step"}
        return f"?{urlencode(given | ({'step': step} if step < len(self._names) else {}))}"
