"""Panels that stay true: each says the time and version of what it shows, and is brought up to date
when its run has news."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from nicegui import ui

from services.dashboard.charts import Chart
from services.dashboard.data_tables import DataTable, Table
from services.dashboard.elements import empty, tag
from services.dashboard.plain_text import plain

log = logging.getLogger(__name__)
EVERY_S = 3.0
Options = dict[str, Any]


@dataclass(frozen=True)
class Stamp:
    """When data is from."""

    time: float | None
    """Unix time."""
    step: int | None = None
    policy_version: int | None = None
    num_skipped: int = 0
    """Lines that could not be read and are left out."""

    def __str__(self) -> str:
        if self.time is None:
            return "no data yet"
        parts = [f"as of {clock(self.time)}"]
        if self.step is not None:
            parts.append(f"iteration {self.step}")
        if self.policy_version is not None:
            parts.append(f"policy v{self.policy_version}")
        if self.num_skipped:
            parts.append(f"{self.num_skipped} unreadable lines left out")
        return " - ".join(parts)


class Stamped(Protocol):
    """What a page shows."""

    @property
    def stamp(self) -> Stamp:
        """When it is from."""
        ...


Model = TypeVar("Model", bound=Stamped)


def clock(unix_s: float) -> str:
    """A time of day, with its date unless it is today's."""
    then, now = datetime.fromtimestamp(unix_s, UTC), datetime.now(UTC)
    return then.strftime("%H:%M:%S UTC" if then.date() == now.date() else "%Y-%m-%d %H:%M UTC")


class Board(Generic[Model]):
    """The panels of one page, of one model that is loaded again and again."""

    def __init__(self, source: str, load: Callable[[], Model]) -> None:
        """`source` is whose page it is, such as a run's id: files that are saved here bear it."""
        self._source = source
        self._load = load
        self._model: Model | None = None
        self._fills: list[Callable[[Model], None]] = []
        self._read_at: float | None = None

    async def start(self, draw: Callable[[], None]) -> None:
        """Let `draw` make the panels, fill them, and keep them up to date. Where that fails a
        banner says so, and it is tried again."""
        self._banner = tag("p", "well", "stale of-panels", role="alert")
        self._banner.set_visibility(False)
        with tag("div", classes="board"):
            draw()
        await self.refresh()
        ui.timer(EVERY_S, self.refresh, immediate=False)

    def panel(
        self,
        title: str,
        fill: Callable[[Model], None],
        wide: bool = False,
        of: Callable[[Model], Any] = lambda model: model,
        numbers: Callable[[Model], Table | None] = lambda model: None,
    ) -> None:
        """A panel that is drawn anew when what it is `of` has changed; nobody's focus is lost, and
        no click, for other news. `numbers` are what it draws as more than text."""
        stamp, body, data = self._frame(title, wide)
        drawn: list[Any] = []

        def show(model: Model) -> None:
            stamp.text = str(model.stamp)
            data.show(numbers(model))
            if drawn == [of(model)]:
                return
            drawn[:] = [of(model)]
            body.clear()
            with body:
                fill(model)

        self._fills.append(show)

    def chart(
        self,
        title: str,
        make: Callable[[Model], Chart | None],
        wide: bool = False,
        note: str = "",
        otherwise: str = "Nothing told yet.",
    ) -> None:
        """A panel with a chart, which stays in place and gets new data, and with its numbers; where
        there is none, it says `otherwise`."""
        stamp, body, data = self._frame(title, wide)
        drawn: list[tuple[ui.echart, Any]] = []

        def show(model: Model) -> None:
            stamp.text = str(model.stamp)
            found = make(model)
            data.show(found and found.table)
            if found is not None and drawn:
                ((chart, words),) = drawn
                chart.options.clear()
                chart.options.update(found.options)
                chart.update()
                words.props["aria-label"] = describe(title, found.options)
                return
            body.clear()
            drawn.clear()
            with body:
                if found is None:
                    empty(otherwise)
                    return
                words = tag("div", role="img", aria_label=describe(title, found.options))
                with words:
                    made = ui.echart(found.options, renderer="svg").classes("chart")
                    drawn.append((made, words))
                if note:
                    tag("p", note, "quiet")

        self._fills.append(show)

    def _frame(self, title: str, wide: bool) -> tuple[Any, Any, DataTable]:
        name = "panel wide" if wide else "panel"
        with tag("section", classes=name, aria_label=title):
            with tag("header"):
                tag("h2", title)
                stamp = tag("span", "no data yet", "stamp")
            body = tag("div", classes="body")
            return stamp, body, DataTable(self._source, title)

    def redraw(self) -> None:
        """Draw again what is of a choice that was made on the page; nothing is read."""
        if self._model is not None:
            for fill in self._fills:
                fill(self._model)

    async def refresh(self) -> None:
        """Bring the panels up to date now."""
        try:
            model = await asyncio.to_thread(self._load)
            if model != self._model:
                for fill in self._fills:
                    fill(model)
        except Exception as error:  # whatever it is: what is shown is old, and must not look new
            self._banner.text = plain(self._complaint(error))
            self._banner.set_visibility(True)
            return
        self._model, self._read_at = model, time.time()
        self._banner.set_visibility(False)

    def _complaint(self, error: Exception) -> str:
        why = str(error)
        if not isinstance(error, ValueError | OSError):
            log.error("a page cannot be loaded", exc_info=error)
            why = "a fault of the dashboard; its log has the reason"
        if self._read_at is None:
            return f"This cannot be read: {why}"
        return f"Stale since {clock(self._read_at)}: {why}"


def describe(title: str, options: Options) -> str:
    """A chart in words: its curves and where each stands."""
    parts = []
    for series in options["series"]:
        points = [point for point in series.get("data", []) if _value(point) is not None]
        if points and series.get("name"):
            parts.append(f"{series['name']} {_value(points[-1]):.4g}")
    return f"{title}. Newest: {', '.join(parts) or 'nothing'}."


def _value(point: Any) -> float | None:
    return point[1] if isinstance(point, list | tuple) else point
