"""What a panel shows as a table and as a file, for who cannot see a chart or wants its numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from services.csv_cells import csv_line
from services.dashboard.elements import table, tag

MAX_ROWS = 200
"""Newest rows of a table on a page; its file has all."""
Cell = str | float | None


@dataclass(frozen=True)
class Table:
    """Rows of cells; the newest come last. None is missing."""

    head: tuple[str, ...]
    rows: list[list[Cell]]

    def csv(self) -> bytes:
        """As a file that a spreadsheet opens; a text is never a formula, what is missing is
        empty."""
        return b"".join(map(csv_line, [self.head, *self.rows]))


class DataTable:
    """Two buttons under a panel. The table is made once somebody wants it, since most do not."""

    def __init__(self, source: str, title: str) -> None:
        """`source` is whose panel it is, such as a run's id; the file's name has it."""
        self._source, self._title = source, title
        self._table: Table | None = None
        self._drawn: Table | None = None
        self._is_open = False
        with tag("footer", classes="data") as self._place:
            label = f"{title} as a table"
            self._button = tag("button", "Table", "link", type="button", aria_label=label)
            self._button.props["aria-expanded"] = "false"
            label = f"{title} as a CSV file"
            download = tag("button", "CSV", "link", type="button", aria_label=label)
            self._body: Any = tag("div")
        self._button.on("click", self._toggle)
        download.on("click", self._download)
        self._place.set_visibility(False)

    def show(self, found: Table | None) -> None:
        """What the panel shows now; None is nothing."""
        self._table = found
        self._place.set_visibility(found is not None)
        if self._is_open:
            self._draw()

    def _toggle(self) -> None:
        self._is_open = not self._is_open
        self._button.props["aria-expanded"] = str(self._is_open).lower()
        self._draw()

    def _draw(self) -> None:
        wanted = self._table if self._is_open else None
        if wanted == self._drawn:
            return
        self._drawn = wanted
        self._body.clear()
        if wanted is None:
            return
        with self._body:
            rows = wanted.rows[-MAX_ROWS:]
            table(wanted.head, [_texts(row) for row in rows], f"{self._title}, as numbers")
            if len(rows) < len(wanted.rows):
                tag("p", f"The last {MAX_ROWS} of {len(wanted.rows)}; the file has all.", "quiet")

    def _download(self) -> None:
        if self._table is not None:
            save(self._source, self._title, self._table)


def save(source: str, title: str, table: Table) -> None:
    """As a file of the browser's, which is named by the two."""
    name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
    ui.download.content(table.csv(), f"{source}-{name}.csv", "text/csv")


def _texts(row: Sequence[Cell]) -> list[str | None]:
    return [f"{cell:.6g}" if isinstance(cell, int | float) else cell for cell in row]
