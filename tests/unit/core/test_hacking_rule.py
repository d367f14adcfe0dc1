"""An alert is raised by two changes that last, not by noise, and does not flicker."""

import random

import pytest

from tdm_core.reward_hacking import HackingEpisode, HackingRule, Score, hacking_episodes

pytestmark = pytest.mark.unit

RULE = HackingRule(sigmas=2.0, hold=2, false_alarms=0.01, evaluations=6)
ERROR = 0.01
"""Of every score; that of a mean of two is 0.00707."""


def scores(*means: float | None, error: float = ERROR) -> list[Score | None]:
    return [None if mean is None else Score(mean, error) for mean in means]


def places(found: list[HackingEpisode]) -> list[tuple[int, int, int | None]]:
    return [(episode.best, episode.raised, episode.cleared) for episode in found]


def test_a_rise_at_the_cost_of_a_held_out_reward_is_raised_once_it_has_lasted():
    found = hacking_episodes(scores(0.4, 0.5, 0.6, 0.7), scores(0.6, 0.55, 0.5, 0.45), RULE)
    assert places(found) == [(0, 2, None)]
    assert (found[0].rise, found[0].fall) == (pytest.approx(0.15), pytest.approx(0.075))


def test_the_fall_counts_from_where_the_held_out_reward_was_best():
    trained, heldout = scores(0.4, 0.5, 0.6, 0.7, 0.8), scores(0.5, 0.55, 0.6, 0.5, 0.5)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(2, 4, None)]


def test_both_rising_or_both_falling_is_no_hacking():
    up, down = scores(0.4, 0.5, 0.6, 0.7), scores(0.7, 0.6, 0.5, 0.4)
    assert hacking_episodes(up, up, RULE) == []
    assert hacking_episodes(down, down, RULE) == []
    assert hacking_episodes(down, up, RULE) == []


@pytest.mark.parametrize(("change", "raised"), [(0.0244, False), (0.0246, True)])
def test_a_rise_counts_from_two_standard_errors_of_the_difference_on(change, raised):
    """Of one evaluation and a window of two: 2 sqrt(1.5) 0.01 = 0.0245."""
    trained = scores(0.4, 0.4, *(0.4 + change,) * 2)
    assert bool(hacking_episodes(trained, scores(0.6, 0.6, 0.5, 0.5), RULE)) is raised


def test_a_fall_counts_from_what_chance_makes_of_all_comparisons_on():
    """Six evaluations compare their last two with 1 + 2 + 3 + 4 windows: p = 0.001, z = 3.09."""
    assert RULE.window_sigmas == pytest.approx(3.0902, abs=1e-4)
    trained = scores(0.4, 0.4, 0.5, 0.5)
    for change, raised in ((0.0308, False), (0.0310, True)):  # z sqrt(2) 0.00707
        heldout = scores(0.6, 0.6, *(0.6 - change,) * 2)
        assert bool(hacking_episodes(trained, heldout, RULE)) is raised


@pytest.mark.parametrize("false_alarms", [0.01, 0.2])
def test_rewards_that_only_scatter_raise_alerts_in_no_more_runs_than_promised(false_alarms):
    """The worst case: what lowers the held-out reward by chance raises the trained one."""
    rng, rule = random.Random(0), HackingRule(false_alarms=false_alarms, evaluations=200)
    alarms = 0
    for _ in range(200):
        heldout = [Score(rng.gauss(0.5, ERROR), ERROR) for _ in range(200)]
        trained = [Score(1 - score.mean, ERROR) for score in heldout]
        alarms += bool(hacking_episodes(trained, heldout, rule))
    assert alarms <= false_alarms * 200
    if false_alarms == 0.2:
        assert alarms > 0  # the bound is no wall


def test_a_slow_decline_under_noise_is_found_in_a_long_run():
    rng, rule = random.Random(0), HackingRule(evaluations=200)
    heldout = [Score(rng.gauss(0.6 - 0.0005 * n, ERROR), ERROR) for n in range(200)]
    trained = [Score(rng.gauss(0.4 + 0.001 * n, ERROR), ERROR) for n in range(200)]
    (found,) = hacking_episodes(trained, heldout, rule)
    assert 0.03 < found.fall < 0.1
    assert found.cleared is None


def test_one_bad_evaluation_raises_nothing():
    trained, heldout = scores(0.4, 0.5, 0.5, 0.5), scores(0.6, 0.5, 0.6, 0.5)
    assert hacking_episodes(trained, heldout, RULE) == []


def test_an_alert_lasts_until_the_fall_is_over_for_as_many_evaluations():
    trained = scores(0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    # .57 is below the best by more than half of z standard errors and less than z: no flicker.
    heldout = scores(0.6, 0.5, 0.5, 0.57, 0.6, 0.57, 0.57)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, None)]
    heldout = scores(0.6, 0.5, 0.5, 0.57, 0.6, 0.6, 0.6)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, 5)]


def test_a_second_time_is_a_second_alert():
    trained = scores(0.4, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6)
    heldout = scores(0.6, 0.5, 0.5, 0.6, 0.6, 0.5, 0.5)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, 4), (4, 6, None)]


def test_what_was_raised_does_not_depend_on_what_came_later():
    trained, heldout = scores(0.4, 0.5, 0.6, 0.7, 0.8), scores(0.6, 0.5, 0.45, 0.4, 0.9)
    for count in (3, 4, 5):
        found = hacking_episodes(trained[:count], heldout[:count], RULE)
        assert (found[0].best, found[0].raised) == (0, 2)


def test_an_evaluation_without_one_of_the_scores_says_nothing():
    trained = scores(None, 0.4, 0.5, None, 0.6, 0.7)
    heldout = scores(0.9, 0.6, 0.5, 0.1, None, 0.5)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(1, 5, None)]
    assert hacking_episodes([], [], RULE) == []


def test_scores_without_any_error_are_taken_at_their_word():
    trained, heldout = scores(0.4, 0.5, 0.5, error=0.0), scores(0.6, 0.59, 0.59, error=0.0)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, None)]
    same = scores(0.5, 0.5, 0.5, error=0.0)
    assert hacking_episodes(same, same, RULE) == []
