"""Costs are numbers of what happened, and nothing of what did not."""

import pytest

from services.runtime.costs import Costs, quantile

pytestmark = pytest.mark.unit


def test_latency_wait_fill_and_throughput_of_two_batches():
    costs = Costs(batch_size=64)
    costs.note_batch(2.0, [0.1, 0.3], {"images": 48, "evaluations": 1})
    costs.note_batch(1.0, [0.2], {"images": 16, "evaluations": 1, "retried": 2})
    assert costs.drain() == {
        "images": 64.0,
        "batches": 2.0,
        "batch_fill": 0.5,
        "seconds": 3.0,
        "images_per_s": pytest.approx(64 / 3),
        "latency_p50_s": 1.0,
        "latency_p95_s": 2.0,
        "wait_p50_s": 0.2,
        "wait_p95_s": 0.3,
        "retried": 2.0,
        "batch_seconds/1": 1.0,
        "batch_seconds/5": 1.0,
        "failed": 0.0,
        "expired": 0.0,
    }
    assert costs.drain() == {}


def test_what_has_no_value_is_counted_by_reason_and_in_all():
    costs = Costs(batch_size=8)
    counts = {"images": 8, "evaluations": 1, "failed/OSError": 4, "failed/no_value": 1}
    costs.note_batch(1.0, [0.0], counts)
    costs.count("expired/too_old", 16)
    numbers = costs.drain()
    assert (numbers["failed"], numbers["failed/OSError"], numbers["failed/no_value"]) == (5, 4, 1)
    assert (numbers["expired"], numbers["expired/too_old"]) == (16, 16)


def test_what_was_let_go_before_any_batch_has_no_latency():
    costs = Costs(batch_size=8)
    costs.count("expired/overflow", 4)
    assert costs.drain() == {"expired/overflow": 4.0, "expired": 4.0}


def test_a_group_in_several_calls_fills_each_of_them_partly():
    costs = Costs(batch_size=10)
    costs.note_batch(1.0, [0.0], {"images": 24, "evaluations": 3})
    assert costs.drain()["batch_fill"] == 0.8


def test_a_quantile_is_a_value_that_was_seen():
    values = [float(n) for n in range(20, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.95)) == (10.0, 19.0)
    assert quantile([7.0], 0.95) == 7.0


def test_batches_are_counted_by_how_long_they_took():
    costs = Costs(batch_size=8)
    for seconds in (0.05, 0.1, 3.0, 1e6):
        costs.note_batch(seconds, [0.0], {"images": 8, "evaluations": 1})
    told = {name: n for name, n in costs.drain().items() if name.startswith("batch_seconds/")}
    assert told == {"batch_seconds/0.1": 2, "batch_seconds/5": 1, "batch_seconds/inf": 1}
