"""A share of clustered observations: by hand, at the edges, and as often right as it says."""

import random

import pytest

from tdm_core.clustered_share import share_of

pytestmark = pytest.mark.unit


def test_few_clusters_count_as_one_observation_each():
    """Wilson's interval of 1 in 2 at n = 2, whatever each of the two says how often."""
    found = share_of([(8, 8), (0, 8)])
    assert found is not None
    assert (found.value, found.num, found.num_clusters) == (0.5, 16, 2)
    assert (found.low, found.high) == pytest.approx((0.0945312, 0.9054688), abs=1e-6)


def test_the_interval_by_hand_where_clusters_tell_their_spread():
    """Ten clusters of 4, with 1 and 3 hits in turn: V = 10/9 * 10 * 1 / 40^2 = 1/144, so that
    p(1-p)/V = 36, which t = 2.262 against z = 1.96 makes 27.03."""
    found = share_of([(1, 4), (3, 4)] * 5)
    assert found is not None
    assert found.value == 0.5
    wilson = (
        1.959964 / (1 + 1.959964**2 / 27.03) * (0.25 / 27.03 + 1.959964**2 / 4 / 27.03**2) ** 0.5
    )
    assert found.high - found.low == pytest.approx(2 * wilson, rel=2e-3)
    assert found.low + found.high == pytest.approx(1.0)


def test_what_all_say_alike_is_not_certain():
    found = share_of([(8, 8)] * 20)
    assert found is not None
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(20 / (20 + 1.959964**2))


def test_observations_are_never_worth_more_than_they_are():
    """Spread more evenly than chance would have it, they count as independent ones."""
    even, alone = share_of([(1, 2)] * 49 + [(0, 2)]), share_of([(1, 1), (0, 1)] * 50)
    assert even is not None
    assert alone is not None
    assert even.high - even.low == pytest.approx(alone.high - alone.low, rel=0.03)


def test_nothing_is_no_share_and_impossible_counts_are_said():
    assert share_of([]) is None
    assert share_of([(0, 0)]) is None
    assert share_of([(0, 0), (1, 2)]) == share_of([(1, 2)])
    with pytest.raises(ValueError, match="3 hits of 2 observations"):
        share_of([(3, 2)])


def test_the_truth_lies_inside_about_as_often_as_promised():
    """Groups of 8 whose members like alike (beta-binomial), where a plain interval is far off."""
    rng = random.Random(0)
    inside = 0
    for _ in range(400):
        clusters = []
        for _ in range(30):
            rate = rng.betavariate(1.2, 0.8)  # mean 0.6
            clusters.append((sum(rng.random() < rate for _ in range(8)), 8))
        found = share_of(clusters)
        assert found is not None
        inside += found.low <= 0.6 <= found.high
    assert inside / 400 == pytest.approx(0.95, abs=0.03)
