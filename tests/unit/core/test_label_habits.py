"""Norms of pace and of liking: who departs from them, and who honestly does not."""

import random

import pytest

from tdm_core.label_habits import Vote, has_shifted, is_faster, pace, unlike_others

pytestmark = pytest.mark.unit


def votes(rng: random.Random, like_rate: float, num_groups: int, label: str = "g") -> list[Vote]:
    """Groups of 8 whose like rates scatter around one."""
    found: list[Vote] = []
    for group in range(num_groups):
        of_group = min(max(rng.gauss(like_rate, 0.15), 0), 1)
        found += [Vote(f"{label}{group}", rng.random() < of_group, None) for _ in range(8)]
    return found


def at(*minutes: int | None) -> list[Vote]:
    return [Vote("g", True, minute) for minute in minutes]


def test_a_pace_is_of_minutes_with_votes_and_one_burst_does_not_move_it():
    assert pace(at(1, 1, 2, 2, 900, 900)) == 2
    assert pace(at(1, 1, 2, 2, *[3] * 100)) == 2
    assert pace(at(None, None)) is None
    assert pace([]) is None


def test_faster_is_three_times_the_norm_and_never_a_pace_that_anybody_may_have():
    assert is_faster(91, 30)
    assert not is_faster(90, 30)
    assert not is_faster(30, 1)
    assert is_faster(31, 1)
    assert not is_faster(None, 1)
    assert not is_faster(100, None)


def test_who_likes_unlike_others_stands_out_where_people_are_alike_and_not_where_they_differ():
    alike = {f"p{n}": (20 + n, 40) for n in range(5)}
    assert unlike_others({**alike, "fan": (40, 40)}) == {"fan"}
    assert unlike_others({**alike, "foe": (0, 40)}) == {"foe"}
    assert unlike_others({**alike, "mild": (30, 40)}) == set()
    various = {f"p{n}": (5 + 6 * n, 40) for n in range(5)}
    assert unlike_others({**various, "fan": (39, 40)}) == set()
    assert unlike_others({"a": (20, 40), "b": (20, 40), "c": (20, 40), "fan": (40, 40)}) == set()


def test_a_share_that_jumps_is_a_shift_and_one_that_moves_with_all_others_is_none():
    rng = random.Random(0)
    earlier, honest = votes(rng, 0.5, 20), votes(rng, 0.5, 5)
    fan = [Vote(vote.group, True, None) for vote in honest]
    assert has_shifted(fan, earlier)
    assert not has_shifted(honest, earlier)
    better, worse = votes(rng, 0.95, 20), votes(rng, 0.5, 20)
    assert not has_shifted(fan, earlier, better, worse)
    assert has_shifted(honest, earlier, better, worse)  # everybody likes more, they do not
    assert not has_shifted([], earlier)
    assert not has_shifted(fan, [])


def test_honest_people_shift_rarely():
    rng = random.Random(1)
    found = sum(
        has_shifted(votes(rng, rate, 5), votes(rng, rate, 10))
        for rate in (0.2, 0.5, 0.8)
        for _ in range(300)
    )
    assert found <= 9  # 1% of 900 looks
