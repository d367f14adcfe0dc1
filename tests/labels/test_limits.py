"""Rates: who asks too often is told when to ask again."""

import pytest

from services.web.limits import MAX_BUCKETS, Rate, RateLimiter
from services.web.problems import Problem
from tests.labels.people import SettableClock

pytestmark = pytest.mark.unit


def refused(limiter, *arguments):
    """Seconds to wait; None where it was allowed."""
    try:
        limiter.take(*arguments)
    except Problem as problem:
        return problem.status == 429 and int(problem.headers["Retry-After"])
    return None


def test_so_many_at_once_and_then_one_by_one():
    clock = SettableClock()
    limiter = RateLimiter({"claim": Rate(num=2, per_s=10)}, clock)
    assert [refused(limiter, "claim", "a") for _ in range(3)] == [None, None, 5]
    assert refused(limiter, "claim", "b") is None
    clock.advance(4.9)
    assert refused(limiter, "claim", "a") == 1
    clock.advance(0.1)
    assert [refused(limiter, "claim", "a") for _ in range(2)] == [None, 5]
    clock.advance(1000)
    assert [refused(limiter, "claim", "a") for _ in range(3)] == [None, None, 5]


def test_many_at_a_time_are_counted():
    limiter = RateLimiter({"label": Rate(num=20, per_s=1)}, SettableClock())
    assert refused(limiter, "label", "a", 15) is None
    assert refused(limiter, "label", "a", 15) == 1
    assert refused(limiter, "label", "a", 5) is None


def test_a_batch_beyond_the_burst_goes_through_and_is_paid_for_afterwards():
    clock = SettableClock()
    limiter = RateLimiter({"label": Rate(num=20, per_s=1)}, clock)
    assert refused(limiter, "label", "a", 1000) is None
    assert refused(limiter, "label", "a", 1) == 50
    clock.advance(50)
    assert refused(limiter, "label", "a", 1000) is None


def test_what_has_no_rate_has_no_limit():
    limiter = RateLimiter({"claim": None}, SettableClock())
    assert {refused(limiter, name, "a") for name in ("claim", "other") * 50} == {None}


def test_a_clock_that_goes_back_neither_fills_nor_empties():
    clock = SettableClock()
    limiter = RateLimiter({"claim": Rate(num=1, per_s=10)}, clock)
    limiter.take("claim", "a")
    clock.advance(-3600)
    assert refused(limiter, "claim", "a") == 10


def test_strangers_cannot_fill_the_memory():
    limiter = RateLimiter({"login": Rate(num=1, per_s=60)}, SettableClock())
    for n in range(MAX_BUCKETS + 10):
        limiter.take("login", str(n))
    assert len(limiter) == MAX_BUCKETS
