"""Curves of a run: thinned without losing peaks, dips or gaps; resumed runs; histograms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runs_api.downsampling import MIN_POINTS, keep
from services.runs_api.metric_table import MetricTable

pytestmark = pytest.mark.unit

values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), max_size=400)


def line(step, version=None, **numbers):
    named = {name.replace("__", "/"): value for name, value in numbers.items()}
    version = step if version is None else version
    return {
        "time": 100.0 + step,
        "step": step,
        "policy_version": version,
        "surrogate_version": version,
    } | named


def table_of(*lines):
    table = MetricTable()
    for each in lines:
        table.add(each)
    return table


def test_a_thinned_curve_keeps_a_single_spike_and_a_single_dip():
    flat = [0.0] * 10_000
    flat[3333], flat[7777] = 5.0, -5.0
    kept = keep(flat, 100)
    assert len(kept) <= 100
    assert {0, 3333, 7777, 9999} <= set(kept)


def test_by_hand_four_stretches_give_lowest_and_highest():
    #           0  1  2  3  4  5  6  7  8  9 10 11 12
    heights = [0, 4, 1, 2, 9, 3, 5, 5, 6, 7, 0, 8, 1]
    # The ends stay; of the inner stretches 1-3, 4-7 and 8-11 the lowest and the highest.
    assert keep(heights, 8) == [0, 1, 2, 4, 5, 10, 11, 12]


@given(values, st.integers(MIN_POINTS, 60))
def test_thinning_keeps_order_bounds_and_extremes(found, max_points):
    kept = keep(found, max_points)
    assert kept == sorted(set(kept))
    assert len(kept) <= max_points
    there = [value for value in found if not math.isnan(value)]
    if there:
        shown = [found[index] for index in kept if not math.isnan(found[index])]
        assert (min(shown), max(shown)) == (min(there), max(there))


@given(values.filter(lambda found: any(map(math.isnan, found))))
def test_a_gap_stays_a_gap(found):
    assert any(math.isnan(found[index]) for index in keep(found, MIN_POINTS))


def test_too_few_points_are_refused_with_the_least_that_works():
    with pytest.raises(ValueError, match=f"use {MIN_POINTS} or more"):
        keep([1.0] * 100, 3)


def test_null_is_missing_and_absent_is_no_point():
    table = table_of(line(1, a__b=1.0), line(2, a__b=None), line(3, other=2.0), line(4, a__b=4.0))
    series = table.series("a/b")
    assert series.steps == [1, 2, 4]
    assert series.values == [1.0, None, 4.0]
    assert series.times == [101.0, 102.0, 104.0]
    assert table.latest("other").step == 3
    assert table.latest("never") is None


def test_a_resumed_run_takes_its_later_iterations_back():
    first = [line(step, x=float(step)) for step in range(1, 6)]
    table = table_of(*first, line(6, only_then=1.0), line(4, x=40.0), line(5, x=50.0))
    series = table.series("x")
    assert series.steps == [1, 2, 3, 4, 5]
    assert series.values == [1.0, 2.0, 3.0, 40.0, 50.0]
    assert table.names == ["x"]


def test_the_last_line_may_repeat_its_iteration_with_an_evaluation():
    table = table_of(line(1, x=1.0), line(2, x=2.0), line(2, evaluation=0.5))
    assert table.latest("x").value == 2.0
    assert table.latest("evaluation").step == 2


def test_a_part_of_a_curve_is_cut_by_iteration_with_both_ends():
    table = table_of(*(line(step, x=float(step)) for step in range(1, 11)))
    assert table.series("x", 3, 5).steps == [3, 4, 5]
    assert table.series("x", 11).steps == []
    thin = table.series("x", max_points=8)
    assert (len(thin.steps) <= 8, thin.num_points) == (True, 10)
