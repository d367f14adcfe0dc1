"""A pool grows when it has been crowded for a while and shrinks when it has idled for longer."""

import pytest

from services.runtime.scaling import ScaleBounds, Scaler

pytestmark = pytest.mark.unit


def scaler(fewest: int = 1, most: int = 3) -> Scaler:
    return Scaler(ScaleBounds(fewest, most, up_after_s=2.0, down_after_s=10.0))


def crowded(used: Scaler, now: float, workers: int = 1) -> int:
    """Every worker is busy and has another batch waiting."""
    return used.step(now, waiting=float(workers), idle=0, workers=workers)


def idle(used: Scaler, now: float, workers: int = 2) -> int:
    return used.step(now, waiting=0.0, idle=1, workers=workers)


def test_crowding_that_lasts_starts_one_worker_and_then_the_clock_anew():
    used = scaler()
    assert [crowded(used, now) for now in (0.0, 1.9, 2.0)] == [0, 0, 1]
    assert [crowded(used, now, 2) for now in (2.25, 4.0, 4.25)] == [0, 0, 1]


def test_a_burst_starts_nobody():
    used = scaler()
    crowded(used, 0.0)
    assert used.step(1.0, waiting=0.5, idle=0, workers=1) == 0
    assert [crowded(used, now) for now in (1.5, 3.0)] == [0, 0]
    assert crowded(used, 3.5) == 1


def test_idleness_that_lasts_ends_one_worker_and_then_the_clock_anew():
    used = scaler()
    assert [idle(used, now, 3) for now in (0.0, 9.9, 10.0)] == [0, 0, -1]
    assert [idle(used, now, 2) for now in (10.25, 20.0, 20.25)] == [0, 0, -1]


def test_a_moment_of_work_for_all_makes_idleness_begin_again():
    used = scaler()
    idle(used, 0.0)
    assert used.step(9.0, waiting=0.0, idle=0, workers=2) == 0
    assert [idle(used, now) for now in (9.25, 19.0)] == [0, 0]


def test_between_the_two_nothing_changes_however_long():
    used = scaler()
    steps = [used.step(now, waiting=1.0, idle=0, workers=2) for now in (0.0, 100.0, 1000.0)]
    assert steps == [0, 0, 0]


def test_the_bounds_hold():
    used = scaler(fewest=2, most=2)
    assert [crowded(used, now, 2) for now in (0.0, 100.0)] == [0, 0]
    assert [idle(used, now, 2) for now in (200.0, 300.0)] == [0, 0]
