"""An alert is raised by two changes that last, not by noise, and does not flicker."""

import pytest

from tdm_core.reward_hacking import HackingEpisode, HackingRule, Score, hacking_episodes

pytestmark = pytest.mark.unit

RULE = HackingRule(sigmas=2.0, clear_sigmas=1.0, hold=2)
ERROR = 0.01
"""Of every score; that of a difference is 0.01414, so twice that is 0.0283."""


def scores(*means: float | None, error: float = ERROR) -> list[Score | None]:
    return [None if mean is None else Score(mean, error) for mean in means]


def places(found: list[HackingEpisode]) -> list[tuple[int, int, int | None]]:
    return [(episode.best, episode.raised, episode.cleared) for episode in found]


def test_a_rise_at_the_cost_of_a_held_out_reward_is_raised_once_it_has_lasted():
    found = hacking_episodes(scores(0.4, 0.5, 0.6, 0.7), scores(0.6, 0.55, 0.5, 0.45), RULE)
    assert places(found) == [(0, 2, None)]
    assert (found[0].rise, found[0].fall) == (pytest.approx(0.2), pytest.approx(0.1))


def test_the_fall_counts_from_where_the_held_out_reward_was_best():
    trained, heldout = scores(0.4, 0.5, 0.6, 0.7, 0.8), scores(0.5, 0.55, 0.6, 0.5, 0.5)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(2, 4, None)]


def test_both_rising_or_both_falling_is_no_hacking():
    up, down = scores(0.4, 0.5, 0.6, 0.7), scores(0.7, 0.6, 0.5, 0.4)
    assert hacking_episodes(up, up, RULE) == []
    assert hacking_episodes(down, down, RULE) == []
    assert hacking_episodes(down, up, RULE) == []


@pytest.mark.parametrize(("change", "raised"), [(0.0282, False), (0.0284, True)])
def test_a_change_counts_from_two_standard_errors_of_the_difference_on(change, raised):
    trained = scores(0.4, *(0.4 + change,) * 2)
    heldout = scores(0.6, *(0.6 - change,) * 2)
    assert bool(hacking_episodes(trained, heldout, RULE)) is raised


def test_one_bad_evaluation_raises_nothing():
    trained, heldout = scores(0.4, 0.5, 0.5, 0.5), scores(0.6, 0.5, 0.6, 0.5)
    assert hacking_episodes(trained, heldout, RULE) == []


def test_an_alert_lasts_until_the_fall_is_over_for_as_many_evaluations():
    trained = scores(0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    # .58 is below the best by more than one standard error and less than two: no flicker.
    heldout = scores(0.6, 0.5, 0.5, 0.58, 0.6, 0.58, 0.58)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, None)]
    heldout = scores(0.6, 0.5, 0.5, 0.58, 0.6, 0.6, 0.6)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, 5)]


def test_a_second_time_is_a_second_alert():
    trained = scores(0.4, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6)
    heldout = scores(0.6, 0.5, 0.5, 0.6, 0.6, 0.5, 0.5)
    assert places(hacking_episodes(trained, heldout, RULE)) == [(0, 2, 4), (0, 6, None)]


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
