"""Pages drawn in this process, without a browser: where they read, what stays drawn."""

import asyncio
import sys
import threading
from dataclasses import dataclass
from functools import partial

import pytest
from fastapi import Request
from nicegui import Client, ui
from nicegui.page import page

from services.dashboard.app import DRAWS
from services.dashboard.charts import Curve, lines
from services.dashboard.frame import Shell, show
from services.dashboard.pages import group
from services.dashboard.panels import Board, Stamp
from services.dashboard.sessions import Sessions
from services.labels.statistics import statistics
from services.run_store import commands
from services.run_store.run_folder import RunFolder
from services.runs_api.library import Library
from services.runs_api.metric_table import Series
from services.train import train
from services.web.auth import Principal
from services.web.clock import utc_now
from tests.labels.labelling_cases import world
from tests.runs_api.people import NO_JOBS, Keys, NoAdmin, NoLabels
from tests.train_cases import toy_run

pytestmark = pytest.mark.unit
READING = ("open", "os.listdir", "os.scandir", "sqlite3.connect")


class Watch:
    """Hears of everything that this thread opens, while it is asked to."""

    def __init__(self):
        self.opened = []
        self._thread = 0
        sys.addaudithook(self._hear)  # for good: Python takes none back

    def _hear(self, event, arguments):
        if event in READING and threading.get_ident() == self._thread:
            self.opened.append((event, str(arguments[0])))

    def __enter__(self):
        self.opened.clear()
        self._thread = threading.get_ident()

    def __exit__(self, *_):
        self._thread = 0


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("drawn")
    folder = RunFolder(runs / "toy-1")
    train(toy_run(runs, telemetry={"images_every": 2}), folder)
    (folder.path / "evaluations").mkdir(exist_ok=True)
    (folder.path / "evaluations/before.png").write_bytes(b"a sheet")
    return folder


def drawn(library, run_id, path, labels=None):
    """The elements of a page."""
    draw = DRAWS.get(path, partial(group.draw, 0))
    shell = Shell(library, Sessions(Keys(()), utc_now), labels or NoLabels(), NO_JOBS, NoAdmin())
    principal = Principal("session", "v", "viewer")
    scope = {"type": "http", "headers": [], "query_string": b"", "state": {"principal": principal}}

    async def in_a_client():
        with Client(page("")) as client:
            await show(shell, Request(scope), run_id, path, draw)
            return list(client.elements.values())

    return asyncio.run(in_a_client())


@pytest.mark.parametrize("path", [*DRAWS, "groups/0"])
def test_no_page_reads_a_run_where_all_pages_are_served(finished, watch, path):
    runs = finished.path.parent
    drawn(Library(runs), finished.id, path)  # imports what it needs
    with watch:
        elements = drawn(Library(runs), finished.id, path)  # by one that has read nothing yet
    texts = [element.text for element in elements if hasattr(element, "text")]
    assert "finished" in texts
    assert any(text.startswith("as of") for text in texts)
    # The index of images is a file without a name.
    assert [each for each in watch.opened if not each[1] or each[1].startswith(str(runs))] == []


def test_a_file_that_was_no_command_is_shown_as_rejected(finished):
    inbox = finished.path / "commands"
    inbox.mkdir(exist_ok=True)
    (inbox / "0.json").write_text("{")
    commands.unanswered(finished.path)  # as the run does
    texts = [
        e.text
        for e in drawn(Library(finished.path.parent), finished.id, "control")
        if hasattr(e, "text")
    ]
    assert "rejected" in texts
    assert not [text for text in texts if "a fault of the dashboard" in text]


@dataclass(frozen=True)
class Told:
    """What a page shows."""

    curves: list[Curve]
    stamp = Stamp(None)


def test_a_chart_that_was_empty_for_once_is_drawn_again():
    found = [Series("x", [1], [10.0], [1], [value], 1, []) for value in (0.25, 0.75)]
    models = [Told([Curve("x", found[0])]), Told([]), Told([Curve("x", found[1])])]
    seen = []

    async def in_a_client():
        with Client(page("")) as client:
            told = iter([*models, models[-1]])
            board = Board("run", lambda: next(told))
            await board.start(lambda: board.chart("Reward", lambda model: lines(model.curves)))
            (timer,) = (each for each in client.elements.values() if isinstance(each, ui.timer))
            for _ in models:
                charts = [e for e in client.elements.values() if isinstance(e, ui.echart)]
                seen.append([chart.options["series"][0]["data"] for chart in charts])
                await timer.callback()

    asyncio.run(in_a_client())
    assert seen == [[[[1, 0.25]]], [], [[[1, 0.75]]]]


class Labels:
    """A label service with a group of the run, until it is away."""

    is_away = False

    def look(self, run_id, with_names):
        """One group, half answered."""
        if self.is_away:
            raise ValueError("the label service does not answer")
        with world() as here:
            here.label("ann", here.group("g", run_id=run_id), "ld--")
            here.wait(60)
            return statistics(here.session, here.now, run_id, with_names)


def tiles(elements):
    """What every tile says, by its name."""
    texts = [(element.tag, element.text) for element in elements if hasattr(element, "text")]
    names = [number for number, (tag, _) in enumerate(texts) if tag == "dt"]
    found = zip(names, [*names[1:], len(texts)], strict=True)
    return {
        texts[start][1]: [text for tag, text in texts[start:end] if tag == "dd"]
        for start, end in found
    }


def test_the_overview_has_the_label_queue_and_does_without_it(finished):
    labels, library = Labels(), Library(finished.path.parent)
    found = tiles(drawn(library, finished.id, "", labels))
    assert found["labels a minute"] == ["0.4", "2 so far"]
    assert found["open groups"] == ["1", "oldest 60 s ago"]
    assert found["answers wanted"] == ["2", "0 groups are held"]
    assert found["images to judge"] == ["0", "in the rewards' queues"]
    assert found["staleness, surrogate"][0] == "0 / 0"
    labels.is_away = True
    found = tiles(drawn(library, finished.id, "", labels))
    assert found["labels"] == ["-", "the label service does not answer"]
    assert found["iteration"] == ["6 of 6"]
