"""What a run's status tells: since when workers are as they are, silences, how old it is itself."""

import json
import os

import pytest

from services.run_store.news import facts_of, news_of
from services.run_store.run_folder import RunFolder
from services.run_store.vitals import SILENT_S, WELL_S, Vitals
from services.runs_api.alerts import alerts_of
from services.runs_api.glance import Glance
from services.runs_api.workers import workers_of

pytestmark = pytest.mark.unit


class Status:
    """A writer that is told how its one worker is, at a time."""

    def __init__(self):
        self.now = 0.0
        self.vitals = Vitals(lambda: self.now)

    def at(self, now, alive=True, restarts=0, pids=(7,)):
        self.now = now
        said = {"alive": alive, "restarts": restarts, "pids": list(pids)}
        return self.vitals.note({"judge": said})

    def worker(self, *args, **more):
        said = self.at(*args, **more)["workers"]["judge"]
        return said["since"], said["died_at"]


def test_a_worker_is_as_it_is_since_it_changed_and_not_since_the_newest_status():
    status = Status()
    assert [status.worker(t) for t in (0.0, 5.0)] == [(0.0, None)] * 2
    assert [status.worker(t, alive=False) for t in (10.0, 15.0, 20.0)] == [(10.0, 10.0)] * 3
    assert [status.worker(t, restarts=1) for t in (25.0, 30.0)] == [(25.0, 10.0)] * 2


def test_deaths_with_little_life_between_are_one_trouble():
    status = Status()
    for t in range(0, 50, 10):
        status.worker(float(t), alive=t % 20 == 0)
    assert status.worker(50.0, alive=False) == (50.0, 10.0)
    assert status.worker(60.0) == (60.0, 10.0)
    assert status.worker(60.0 + WELL_S, alive=False) == (60.0 + WELL_S, 60.0 + WELL_S)


def test_a_death_between_two_statuses_shows_by_its_restart():
    status = Status()
    status.worker(0.0)
    assert status.worker(5.0, restarts=1) == (5.0, 5.0)


def test_a_worker_that_has_not_started_yet_has_not_died():
    status = Status()
    assert status.worker(0.0, alive=False, pids=()) == (0.0, None)
    assert status.worker(5.0) == (0.0, None)


def test_a_silence_is_noted_by_the_status_that_ends_it():
    status = Status()
    assert [status.at(t)["silence"] for t in (0.0, 5.0, 5.0 + SILENT_S)] == [None] * 3
    assert status.at(100.0)["silence"] == {"from": 35.0, "until": 100.0}
    assert status.at(105.0)["silence"] == {"from": 35.0, "until": 100.0}
    assert status.at(150.0)["silence"] == {"from": 35.0, "until": 150.0}
    for t in range(150, 240, 10):
        status.at(float(t))
    assert status.at(300.0)["silence"] == {"from": 230.0, "until": 300.0}


NOW = 1.0e9


@pytest.mark.parametrize(
    ("says", "file", "state", "age_s", "alerts"),
    [
        (NOW - 5, NOW - 5, "running", 5.0, []),
        (NOW + 5, NOW + 5, "running", 0.0, []),
        (NOW + 3600, NOW - 5, "running", 5.0, ["clock"]),
        (NOW + 3600, NOW - 100, "silent", 100.0, ["clock", "silent"]),
        (NOW + 3600, NOW + 3600, "silent", None, ["clock", "silent"]),
        (NOW - 100, NOW - 5, "silent", 100.0, ["silent"]),
    ],
)
def test_a_time_of_the_future_is_not_fresh(tmp_path, says, file, state, age_s, alerts):
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"state": "running", "updated_at": says, "workers": {}}))
    os.utime(path, (file, file))
    facts = facts_of(RunFolder(tmp_path), NOW)
    assert (facts["state"], facts["age_s"]) == (state, age_s)
    assert sorted(alert.rule for alert in alerts_of(facts, Glance(), [])) == alerts
    if state == "silent":
        unknown = "its status is 3600 s ahead of this machine's clock, so its age is not known"
        assert news_of(facts) == (unknown if age_s is None else "no news for 100 s")


def test_a_worker_that_rests_is_told_from_those_that_work_and_those_that_died():
    said = {"alive": True, "pids": [1], "restarts": 0}
    workers = {"reward-x-0": said, "reward-x-1": said, "reward-x-2": {**said, "alive": False}}
    resting = {"reward-x-1": "it fails", "reward-x-2": "it died"}
    facts = {"state": "running", "workers": workers, "resting": resting}
    assert [worker.state for worker in workers_of(facts)] == ["alive", "resting", "dead"]
