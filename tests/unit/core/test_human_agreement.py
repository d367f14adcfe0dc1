"""Others against people: by hand, with ties, one class only, few labels, and a judge that knows."""

import random

import pytest

from tdm_core.human_agreement import (
    MIN_GROUPS,
    Agreement,
    Voted,
    agreement,
    like_rates,
    places,
)

pytestmark = pytest.mark.unit


def group(likes, scores):
    """A letter an image: l(iked) d(isliked) - (nobody said) t(ie)."""
    votes = {"l": (1.0, 1.0), "d": (0.0, 1.0), "-": (0.0, 0.0), "t": (1.0, 2.0)}
    pairs = zip(likes, scores, strict=True)
    return [Voted(*votes[letter], score) for letter, score in pairs]


def auc_of(*groups):
    """Of enough copies of these groups."""
    found = agreement(groups * MIN_GROUPS).auc
    assert found is not None
    return found.value


def test_the_auc_by_hand():
    """Liked .9 and .4 against disliked .1 and .6: 3 of 4 pairs; the next group has 1 of 2."""
    assert auc_of(group("lldd", [0.9, 0.4, 0.1, 0.6])) == 3 / 4
    second = group("ldd", [0.5, 0.6, 0.4])
    assert auc_of(group("lldd", [0.9, 0.4, 0.1, 0.6]), second) == pytest.approx(4 / 6)


def test_equal_scores_count_half_and_a_reversed_judge_is_at_zero():
    assert auc_of(group("ld", [0.5, 0.5])) == 0.5
    assert auc_of(group("lld", [0.5, 0.7, 0.5])) == 0.75
    assert auc_of(group("ld", [0.1, 0.9])) == 0.0


def test_scores_of_different_groups_are_never_compared():
    """Each group is in order, though the second one's best is below the first one's worst."""
    assert auc_of(group("ld", [9.0, 8.0]), group("ld", [2.0, 1.0])) == 1.0


@pytest.mark.parametrize(
    ("likes", "scores"),
    [
        ("llll", [0.1, 0.2, 0.3, 0.4]),
        ("dddd", [0.1, 0.2, 0.3, 0.4]),
        ("l---", [0.1, 0.2, 0.3, 0.4]),
        ("lttt", [0.1, 0.2, 0.3, 0.4]),
        ("lddd", [0.1, None, None, None]),
        ("", []),
    ],
    ids=["all liked", "all disliked", "one label", "ties", "not scored", "empty"],
)
def test_a_group_without_both_kinds_tells_nothing(likes, scores):
    found = agreement([group(likes, scores)] * 50)
    assert (found.auc, found.num_groups) == (None, 0)


def test_few_groups_tell_nothing_yet():
    few = [group("ld", [1.0, 0.0])] * (MIN_GROUPS - 1)
    assert agreement(few) == Agreement(None, MIN_GROUPS - 1, agreement(few).bins)
    enough = agreement([*few, few[0]]).auc
    assert enough is not None
    assert enough.value == 1.0
    assert enough.low < 0.75  # ten groups are not certain


def test_bins_have_equal_votes_and_their_like_rate():
    """Scores 0.0 to 7.9 in steps of .1, liked from 4.0 on: eight bins of ten votes."""
    groups = [
        group("d" if n < 40 else "l", [n / 10]) for n in random.Random(0).sample(range(80), 80)
    ]
    bins = agreement(groups).bins
    assert [(each.low, each.high) for each in bins] == [(n, n + 0.9) for n in range(8)]
    assert [each.like_rate.value for each in bins] == [0.0] * 4 + [1.0] * 4
    assert all(each.like_rate.num == 10 for each in bins)


def test_equal_scores_share_a_bin_and_a_rest_joins_the_last():
    groups = [group("l", [1.0])] * 12 + [group("d", [0.0])] * 30 + [group("l", [2.0])] * 3
    low, high = agreement(groups).bins
    assert (low.low, low.high, low.like_rate.value, low.like_rate.num) == (0.0, 0.0, 0.0, 30)
    assert (high.low, high.high, high.like_rate.value, high.like_rate.num) == (1.0, 2.0, 1.0, 15)


def test_too_few_votes_make_no_bin():
    assert agreement([group("l", [0.5])] * 9).bins == []
    assert agreement([]) == Agreement(None, 0, [])
    unscored = [(3.0, 0, Voted(1.0, 1.0, None))] * 10
    assert len(like_rates(unscored)) == 1


def test_places_in_a_group():
    assert places([5.0, 1.0, 3.0]) == [1.0, 0.0, 0.5]
    assert places([2.0, 2.0, None, 1.0]) == [0.75, 0.75, None, 0.0]
    assert places([2.0, None]) == [None, None]
    assert places([4.0, 4.0]) == [0.5, 0.5]


def test_a_judge_that_knows_people_is_told_from_one_that_does_not():
    """True rates uniform: for a judge that knows them P(agree) is 5/6."""
    rng = random.Random(0)
    knowing, blind = [], []
    for _ in range(400):
        rates = [rng.random() for _ in range(8)]
        likes = "".join("l" if rng.random() < rate else "d" for rate in rates)
        knowing.append(group(likes, rates))
        blind.append(group(likes, [rng.random() for _ in range(8)]))
    known, guessed = agreement(knowing), agreement(blind)
    assert known.auc is not None
    assert guessed.auc is not None
    assert known.auc.low < 5 / 6 < known.auc.high
    assert guessed.auc.low < 1 / 2 < guessed.auc.high
    assert known.auc.high - known.auc.low < 0.06
    for each in known.bins:
        assert each.like_rate.low < (each.low + each.high) / 2 < each.like_rate.high
