"""What a run's status remembers: since when workers are as they are, and silences."""

import pytest

from services.run_store.vitals import SILENT_S, WELL_S, Vitals

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
