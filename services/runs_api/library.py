"""The runs of a folder, each read once, then only what is new. Of all what lists show is kept, of
those that are looked at everything."""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from services.run_store.alerts import standing
from services.run_store.forms import (
    are_numbers,
    is_alert,
    is_appearance,
    is_group_event,
    is_tombstone,
)
from services.run_store.images import ImageStore
from services.run_store.news import facts_of
from services.run_store.run_folder import BrokenRunError, RunFolder, look_up_runs
from services.run_store.tail import Tail
from services.runs_api.alerts import Alert, alerts_of
from services.runs_api.evaluations import Sheets
from services.runs_api.glance import Glance
from services.runs_api.group_index import GroupIndex
from services.runs_api.held_out import HeldOut
from services.runs_api.jobs import history, store_of
from services.runs_api.metric_table import MetricTable
from services.runs_api.tally import Tally

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
BAD_NAME = "its name is part of addresses; rename it: letters, digits, dots, hyphens, underscores"


class OpenRun:
    """One run, read as it grows: what lists show of it, and while it is looked at its numbers in
    memory and an index of its images."""

    def __init__(self, folder: RunFolder, use: Callable[["OpenRun"], None]) -> None:
        """`use` is told whenever the numbers or the images are looked at."""
        self.folder = folder
        self.store = ImageStore(folder.images)
        self.sheets = Sheets(folder.path / "evaluations")
        self.held_out = HeldOut(folder.path / "evaluations")
        self._use = use
        self._groups: GroupIndex | None = None
        self._begun_at: float | None = None
        self._begin(None)
        self._lock = threading.Lock()
        self._inbox = threading.Lock()

    @property
    def id(self) -> str:
        """The run's id."""
        return self.folder.id

    def facts(self) -> dict[str, Any]:
        """The status, its age, and `silent` where a run stopped renewing it."""
        self.check()
        return facts_of(self.folder)

    def alerts(self) -> list[Alert]:
        """What is or was wrong with it."""
        facts = self.facts()
        with self.glance() as glance:
            self._raised = standing([*self._raised, *self._alerts.read_all()])
            if self._alerts.is_over:
                self._alerts, self._raised = Tail(self.folder.alerts, is_ours=is_alert), []
            return alerts_of(facts, glance, self._raised)

    @contextmanager
    def glance(self) -> Iterator[Glance]:
        """What lists show, with everything that is written by now; nobody else's meanwhile."""
        with self._looking():
            self._read()
            yield self._glance

    @contextmanager
    def numbers(self) -> Iterator[MetricTable]:
        """The metric table with everything that is written by now; nobody else's meanwhile."""
        self._use(self)
        with self._looking():
            if self._table is None:
                self._read_from_start(MetricTable())
            self._read()
            assert self._table is not None
            self._table.num_skipped = self._metrics.num_skipped
            yield self._table

    @contextmanager
    def images(self) -> Iterator[GroupIndex]:
        """The index of groups with everything that is written by now; nobody else's meanwhile."""
        self._use(self)
        with self._looking():
            groups = self._groups or self._index_from_start()
            try:
                self._read_into(groups)
            except Exception:  # such as a disk that is full: what it lacks now it would never get
                self._close_groups()
                raise
            if self._images.is_over or self._events.is_over or self._removed.is_over:
                groups.close()
                groups = self._index_from_start()
            yield groups

    def _read_into(self, groups: GroupIndex) -> None:
        while lines := self._images.read():
            groups.add(lines)
        while lines := self._events.read():
            groups.add_events(lines)
        while lines := self._removed.read():
            groups.add_tombstones(lines)

    def rest(self) -> None:
        """Give back what only its own pages need."""
        with self._lock:
            self._table = None
            self._close_groups()
        self.held_out.rest()

    def _close_groups(self) -> None:
        if self._groups is not None:
            self._groups.close()
            self._groups = None

    def check(self) -> None:
        """BrokenRunError where the run is gone, or where a link among its texts leads out of its
        folder: they are shown."""
        if not self.folder.origin_path.exists():
            raise BrokenRunError(f"{self.folder.path} is gone: the run was deleted or moved")
        for path in (self.folder.events, self.folder.config):
            if path.is_symlink() and not path.resolve().is_relative_to(self.folder.path.resolve()):
                raise BrokenRunError(f"{path} is a link out of the run's folder; put a file there")

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Nobody else looks; what was read is of the run that is there now."""
        with self._lock:
            self.check()
            with suppress(BrokenRunError):
                begun_at = self.folder.origin().get("created_at", self._begun_at)
                if self._begun_at not in (None, begun_at):  # another run of that name
                    self._close_groups()
                    self.held_out.rest()
                    self._begin(None if self._table is None else MetricTable())
                self._begun_at = begun_at
            yield

    def _begin(self, table: MetricTable | None) -> None:
        self.tally = Tally(self.folder.metrics)
        self._alerts = Tail(self.folder.alerts, is_ours=is_alert)
        self._raised: list[Mapping[str, Any]] = []
        self._read_from_start(table)

    def _read(self) -> None:
        is_told_anew = False
        while lines := self._metrics.read():
            for line in lines:
                is_told_anew |= not self._glance.add(line)
                if self._table is not None:
                    self._table.add(line)
        if self._metrics.is_over:
            self._read_from_start(None if self._table is None else MetricTable())
            self._read()
        elif is_told_anew:  # a table knows which lines stand
            table = self._whole() if self._table is None else self._table
            self._glance = Glance(table.lines())

    def _read_from_start(self, table: MetricTable | None) -> None:
        self._table, self._glance = table, Glance()
        self._metrics = Tail(self.folder.metrics, is_ours=are_numbers)

    def _whole(self) -> MetricTable:
        table, tail = MetricTable(), Tail(self.folder.metrics, is_ours=are_numbers)
        while tail.position < self._metrics.position and (lines := tail.read()):
            for line in lines:
                table.add(line)
        return table

    def _index_from_start(self) -> GroupIndex:
        self._groups = GroupIndex()
        self._images = Tail(self.store.index_path, is_ours=is_appearance)
        self._events = Tail(self.folder.groups, is_ours=is_group_event)
        self._removed = Tail(self.store.removed_path, is_ours=is_tombstone)
        return self._groups

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
        return sheet.path if sheet else self.held_out.image(digest) or self._drawn(digest)

    def _drawn(self, digest: str) -> Path | None:
        is_ours = any(digest in job.images for job in history(self.folder))
        return store_of(self.folder).path(digest) if is_ours else None


class Library:
    """Runs by id. An id is looked up among the folders that are there; it is never a path."""

    def __init__(self, runs: Path, max_open: int = 32) -> None:
        """Of at most `max_open` runs the numbers and images are kept; of all, what lists show."""
        self.runs = runs
        self._max_open = max_open
        self._known: dict[str, OpenRun] = {}
        self._in_use: OrderedDict[str, OpenRun] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def in_use(self) -> list[str]:
        """Runs whose numbers and images are kept, the longest unused first."""
        return list(self._in_use)

    def all(self) -> list[OpenRun]:
        """Every run, the newest first."""
        return self.look_up()[0]

    def look_up(self) -> tuple[list[OpenRun], dict[str, str]]:
        """Every run, the newest first; and by name why others cannot be read."""
        if not self.runs.is_dir():  # a disk that went away is no folder without runs
            raise BrokenRunError(f"{self.runs} is no folder any more; the runs are written there")
        folders, broken = look_up_runs(self.runs)
        broken |= {folder.id: BAD_NAME for folder in folders if not RUN_ID.fullmatch(folder.id)}
        folders = [folder for folder in folders if folder.id not in broken]
        found = [self._opened(folder) for folder in folders]
        with self._lock:
            for gone in self._known.keys() - {folder.id for folder in folders}:
                del self._known[gone]
        return found, {_printable(name): why for name, why in broken.items()}

    def find(self, run_id: str) -> OpenRun | None:
        """The run of that id."""
        folder = RunFolder(self.runs / run_id)
        if not RUN_ID.fullmatch(run_id):
            return None
        try:
            is_there = folder.origin_path.is_file()
        except PermissionError:  # the list does not have it either
            is_there = False
        return self._opened(folder) if is_there else None

    def _opened(self, folder: RunFolder) -> OpenRun:
        with self._lock:
            if folder.id not in self._known:
                self._known[folder.id] = OpenRun(folder, self._use)
            return self._known[folder.id]

    def _use(self, run: OpenRun) -> None:
        with self._lock:
            self._in_use[run.id] = run
            self._in_use.move_to_end(run.id)
            num_resting = max(0, len(self._in_use) - self._max_open)
            resting = [self._in_use.popitem(last=False)[1] for _ in range(num_resting)]
        for other in resting:
            other.rest()


def _printable(name: str) -> str:
    """A file's name may be no text."""
    return name.encode("utf-8", "backslashreplace").decode()
