"""The runs of a folder, each kept open while it is looked at: read once, then only what is new."""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.run_store.images import ImageStore
from services.run_store.lines import are_numbers, is_appearance
from services.run_store.news import facts_of
from services.run_store.run_folder import RunFolder, list_runs
from services.run_store.tail import Tail
from services.runs_api.evaluations import Sheets
from services.runs_api.group_index import GroupIndex
from services.runs_api.metric_table import MetricTable

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class OpenRun:
    """One run: its numbers in memory, its images in an index, its small files as they stand."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.store = ImageStore(folder.images)
        self.sheets = Sheets(folder.path / "evaluations")
        self._groups: GroupIndex | None = None
        self._open_numbers()
        self._images = Tail(self.store.index_path, is_ours=is_appearance)
        self._lock = threading.Lock()
        self._inbox = threading.Lock()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.id

    def facts(self) -> dict[str, Any]:
        """The status, its age, and `silent` where a run stopped renewing it."""
        return facts_of(self.folder)

    @contextmanager
    def numbers(self) -> Iterator[MetricTable]:
        """The metric table with everything that is written by now; nobody else's meanwhile."""
        with self._lock:
            while lines := self._metrics.read():
                for line in lines:
                    self.table.add(line)
            if self._metrics.is_over:
                self._open_numbers()
            self.table.num_skipped = self._metrics.num_skipped
            yield self.table

    def _open_numbers(self) -> None:
        self.table = MetricTable()
        self._metrics = Tail(self.folder.metrics, is_ours=are_numbers)

    @contextmanager
    def images(self) -> Iterator[GroupIndex]:
        """The index of groups with everything that is written by now; nobody else's meanwhile."""
        with self._lock:
            groups = self._groups = self._groups or GroupIndex()
            while lines := self._images.read():
                groups.add(lines)
            if self._images.is_over:
                groups.close()
                groups = self._groups = GroupIndex()
                self._images = Tail(self.store.index_path, is_ours=is_appearance)
            yield groups

    @contextmanager
    def commanding(self) -> Iterator[None]:
        """Nobody else of this process asks the run for anything meanwhile."""
        with self._inbox:
            yield

    def image(self, digest: str) -> Path | None:
        """Where an image of this run lies or lay; None for what it never stored."""
        with self.images() as index:
            if index.has_image(digest):
                return self.store.path(digest)
        sheet = self.sheets.by_digest(digest)
        return sheet.path if sheet else None


class Library:
    """Runs by id. An id is looked up among the folders that are there; it is never a path."""

    def __init__(self, runs: Path, max_open: int = 32) -> None:
        self.runs = runs
        self._max_open = max_open
        self._open: OrderedDict[str, OpenRun] = OrderedDict()
        self._lock = threading.Lock()

    def all(self) -> list[OpenRun]:
        """Every run, the newest first."""
        return [self._opened(folder) for folder in list_runs(self.runs)]

    def find(self, run_id: str) -> OpenRun | None:
        """The run of that id."""
        folder = RunFolder(self.runs / run_id)
        if not RUN_ID.fullmatch(run_id) or not (folder.path / "run.json").is_file():
            return None
        return self._opened(folder)

    def _opened(self, folder: RunFolder) -> OpenRun:
        with self._lock:
            run = self._open.get(folder.id) or OpenRun(folder)
            self._open[folder.id] = run
            self._open.move_to_end(folder.id)
            if len(self._open) > self._max_open:
                self._open.popitem(last=False)
            return run
