"""A folder of many runs: each is read once, what lists show stays, the rest is bounded."""

import json
import os

import pytest

from services.run_store.run_folder import RunFolder
from services.runs_api.glance import Glance
from services.runs_api.library import Library
from tests.unit.test_run_curves import line, table_of

pytestmark = pytest.mark.unit
MAX_OPEN = 2
NUM_RUNS = 5


def put(folder, *lines):
    with folder.metrics.open("a") as file:
        file.writelines(json.dumps(each) + "\n" for each in lines)


def make_run(runs, name):
    folder = RunFolder(runs / name)
    folder.images.mkdir(parents=True)
    (folder.path / "run.json").write_text(json.dumps({"run_id": name, "created_at": 1.0}))
    folder.write_status({"state": "paused"})
    put(
        folder,
        *(line(step, reward__r__mean=step / 8, advantage__zero_signal=0.5) for step in (1, 2, 3)),
    )
    return folder


def seen(library):
    """What a list shows: the newest reward by run, and the rules that are broken."""
    found = {}
    for run in library.all():
        with run.glance() as glance:
            newest = glance.newest["reward/r/mean"].value
        found[run.id] = newest, *(alert.rule for alert in run.alerts())
    return found


@pytest.fixture
def folders(tmp_path):
    return [make_run(tmp_path, f"run-{number}") for number in range(NUM_RUNS)]


@pytest.fixture
def library(tmp_path, folders):
    return Library(tmp_path, MAX_OPEN)


def test_a_second_look_at_more_runs_than_are_open_reads_nothing_again(library, folders):
    first = seen(library)
    assert set(first.values()) == {(3 / 8, "zero_signal")}
    for folder in folders:  # what was read is not there any more, and nobody notices
        folder.metrics.write_text("x" * (folder.metrics.stat().st_size - 1) + "\n")
        put(folder, line(4, reward__r__mean=0.75))
    assert set(seen(library).values()) == {(0.75, "zero_signal")}


def test_numbers_are_kept_of_as_many_runs_as_may_be_open(library):
    runs = library.all()
    assert library.in_use == []
    for run in runs:
        with run.numbers() as table:
            assert table.series("reward/r/mean").values == [1 / 8, 2 / 8, 3 / 8]
    assert library.in_use == [run.id for run in runs[-MAX_OPEN:]]
    with runs[0].numbers() as table:  # read anew
        assert table.series("reward/r/mean").values == [1 / 8, 2 / 8, 3 / 8]
        first = table
    with runs[0].numbers() as table:
        assert table is first
    assert library.in_use == [runs[-1].id, runs[0].id]


def test_a_run_that_is_gone_is_forgotten(library, folders):
    known = library.find("run-0")
    assert library.find("run-0") is known
    (folders[0].path / "run.json").unlink()
    assert len(library.all()) == NUM_RUNS - 1
    assert library.find("run-0") is None


RESUMED = [
    *(line(step, x=float(step), advantage__zero_signal=0.9) for step in range(1, 7)),
    *(line(step, y=step * 2.0, advantage__zero_signal=0.1) for step in range(3, 6)),
]


@pytest.mark.parametrize("is_open", [True, False])
def test_a_resumed_run_shows_what_stands(library, folders, is_open):
    run = library.find("run-0")
    assert run is not None
    folders[0].metrics.write_text("")
    for each in RESUMED:
        put(folders[0], each)
        if is_open:
            with run.numbers():
                pass
        with run.glance() as glance:
            assert glance.step == each["step"]
    assert glance.newest == Glance(table_of(*RESUMED).lines()).newest
    assert (glance.newest["x"].step, glance.newest["y"].value) == (2, 10.0)
    assert run.alerts() == []


def test_a_small_file_is_read_when_it_has_changed(folders):
    folder, path = folders[0], folders[0].path / "status.json"
    assert folder.status()["state"] == "paused"
    about = path.stat()
    path.write_text(path.read_text().replace("paused", "failed"))
    changed = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert folder.status()["state"] == "paused"
    os.utime(path, ns=(changed.st_atime_ns, about.st_mtime_ns + 1))
    assert folder.status()["state"] == "failed"
    assert folder.status() is not folder.status()
