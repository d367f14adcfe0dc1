"""Alerts of a run: raised and cleared with hysteresis, the same for every reader."""

import pytest

from services.runs_api.alerts import alerts_of, stalled
from services.runs_api.glance import Glance
from services.runs_api.rules import Hysteresis, Moment
from services.runs_api.workers import workers_of
from tests.unit.test_run_curves import line

pytestmark = pytest.mark.unit

RUNNING = {"state": "running", "age_s": 1.0, "iteration": 5, "updated_at": 100.0}


def alerts(facts, *lines, raised=(), now=None):
    """Of a run whose status is as old as it says, at that time."""
    at = {} if now is None else {"updated_at": now - facts["age_s"]}
    return alerts_of({**facts, **at}, Glance(lines), raised)


def rules(facts, *lines, now=None):
    return [alert.rule for alert in alerts(facts, *lines, now=now)]


def episodes(values, *thresholds):
    """(index of the start, of the end, peak) of each."""
    followed = Hysteresis(*thresholds)
    for index, value in enumerate(values):
        followed.add(value, Moment(float(index), index))
    return [
        (each.start.step, None if each.end is None else each.end.step, each.peak)
        for each in followed.episodes
    ]


def test_it_takes_as_many_lines_to_raise_as_to_clear():
    values = [0.1, 0.5, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2]
    assert episodes(values, 0.4, 0.3, 3) == [(3, 7, 0.5)]
    assert episodes([*values, 0.6, 0.7, 0.8], 0.4, 0.3, 3) == [(3, 7, 0.5), (11, None, 0.8)]


def test_between_the_two_thresholds_nothing_changes():
    assert episodes([0.35] * 9, 0.4, 0.3, 2) == []
    assert episodes([0.5, 0.5, 0.35, 0.35, 0.35], 0.4, 0.3, 2) == [(1, None, 0.5)]


def test_one_good_line_starts_the_count_anew():
    assert episodes([0.5, 0.5, 0.1, 0.5, 0.5], 0.4, 0.3, 3) == []


def test_a_missing_value_neither_raises_nor_clears():
    assert episodes([0.5, None, 0.5], 0.4, 0.3, 2) == [(2, None, 0.5)]
    assert episodes([None] * 9, 0.4, 0.3, 1) == []


def test_a_number_that_stays_high_is_named_with_its_limit_and_a_remedy():
    lines = (line(step, advantage__zero_signal=0.75) for step in range(1, 5))
    (alert,) = alerts(RUNNING, *lines, now=104.0)
    assert (alert.rule, alert.raised_step, alert.cleared_at) == ("zero_signal", 3, None)
    assert "0.75" in alert.detail
    assert "0.4" in alert.detail
    assert alert.remedy


def test_a_lost_step_is_critical():
    lines = line(1, generator__step_lost=0.0), line(2, generator__step_lost=1.0)
    (alert,) = alerts(RUNNING, *lines, now=102.0)
    assert (alert.rule, alert.severity) == ("step_lost", "critical")


def test_a_queue_that_grows_beyond_what_is_judged_is_told_until_it_is_short_again():
    def waiting(step, depth, judged=8.0):
        counts = {} if judged is None else {"reward__ocr__images": judged}
        return line(step, reward__ocr__queue_depth=depth, **counts)

    growing = [waiting(step, 12.0 * step) for step in range(1, 5)]
    assert rules(RUNNING, *growing) == []
    assert rules(RUNNING, *(waiting(step, 30.0, judged=None) for step in range(1, 9))) == []
    (alert,) = alerts(RUNNING, *growing, waiting(5, 60.0), now=105.0)
    assert (alert.rule, alert.raised_step, alert.cleared_step) == ("queue_growth", 5, None)
    assert "reward/ocr/queue_depth reached 7.5" in alert.detail
    short = [waiting(step, 9.0) for step in range(6, 9)]
    (alert,) = alerts(RUNNING, *growing, waiting(5, 60.0), *short, now=108.0)
    assert alert.cleared_step == 8


def test_a_reward_that_is_missing_is_counted_out_of_the_images():
    def evaluated(step, missing):
        counts = {"evaluation__student__ocr__missing": missing}
        return line(step, **counts, evaluation__student__num_images=64.0)

    assert rules(RUNNING, evaluated(1, 12.0)) == []
    lines = line(1), evaluated(2, 13.0), line(3), evaluated(4, 6.0)
    (alert,) = alerts(RUNNING, *lines, now=105.0)
    assert (alert.rule, alert.raised_step, alert.cleared_step) == ("invalid_rewards", 2, 4)
    assert "0.203" in alert.detail


def test_silence_failure_and_death_are_said():
    assert rules({**RUNNING, "state": "silent", "age_s": 77.0}) == ["silent"]
    assert rules({**RUNNING, "state": "failed", "error": "Traceback\nValueError: no"}) == ["failed"]
    dead = {"reward-ocr-0": {"alive": False, "pids": [1], "restarts": 1}}
    assert rules({**RUNNING, "workers": dead}) == ["worker_dead"]
    assert rules({**RUNNING, "state": "finished", "workers": dead}) == []


def test_a_run_is_stalled_only_long_after_its_iterations_take():
    lines = [line(step, x=1.0) for step in range(1, 9)]
    times = [each["time"] for each in lines]
    assert stalled(times, times[-1] + 59) is None
    assert stalled(times, times[-1] + 61) == (times[-1], 61)
    assert rules(RUNNING, *lines, now=times[-1] + 61) == ["stalled"]
    assert rules({**RUNNING, "state": "paused"}, *lines, now=times[-1] + 61) == []


def test_a_stall_lasts_until_iterations_take_no_longer_than_usual():
    times = [*range(0, 10), 100, 101, 102]
    assert stalled(times, 102.5) == (9, 91)
    assert stalled([*times, 103], 103.5) is None


def judge(**more):
    said = {"alive": True, "pids": [1], "restarts": 1, "since": 40.0, "died_at": 30.0}
    return {**RUNNING, "workers": {"judge": said | more}}


def test_a_dead_worker_is_dead_since_it_died():
    (alert,) = alerts(judge(alive=False, since=40.0))
    assert (alert.title, alert.raised_at, alert.cleared_at) == ("Worker judge is dead", 30.0, None)
    (alert,) = alerts({**RUNNING, "workers": {"old": {"alive": False, "pids": [1], "restarts": 0}}})
    assert alert.raised_at == RUNNING["updated_at"]


def test_a_worker_that_lives_again_is_well_only_after_a_while():
    (flickers,) = alerts(judge(since=41.0))
    assert (flickers.title, flickers.raised_at) == ("Worker judge was dead", 30.0)
    assert flickers.cleared_at is None
    (over,) = alerts(judge(since=40.0))
    assert (over.raised_at, over.cleared_at) == (30.0, 100.0)
    assert alerts(judge(died_at=None)) == []


def test_a_run_that_falls_silent_again_and_again_has_one_alert():
    before = {"silence": {"from": 10.0, "until": 60.0}}
    again = {**RUNNING, "state": "silent", "age_s": 40.0, "updated_at": 70.0}
    raised = [alert.raised_at for facts in (again, again | before) for alert in alerts(facts)]
    assert raised == [70.0, 10.0]
    (speaks,) = alerts({**RUNNING, **before})
    assert (speaks.raised_at, speaks.cleared_at) == (10.0, None)
    (over,) = alerts({**RUNNING, **before, "updated_at": 120.0})
    assert (over.raised_at, over.cleared_at) == (10.0, 120.0)


def test_what_the_run_itself_has_raised_is_shown_beside():
    raised = [{"rule": "reward_hacking", "severity": "critical", "time": 50.0, "step": 3}]
    (alert,) = alerts(RUNNING, raised=raised)
    assert (alert.rule, alert.severity, alert.raised_step) == ("reward_hacking", "critical", 3)


def test_of_a_silent_run_nobody_knows_how_its_workers_are():
    said = {
        "reward-ocr-1": {"alive": True, "pids": [7], "restarts": 0},
        "replay": {"alive": False, "pids": [8], "restarts": 2},
    }
    states = lambda run: {w.name: w.state for w in workers_of({"state": run, "workers": said})}  # noqa: E731
    assert states("running") == {"reward-ocr-1": "alive", "replay": "dead"}
    assert set(states("silent").values()) == {"unknown"}
    assert set(states("finished").values()) == {"ended"}
    assert [w.role for w in workers_of({"state": "running", "workers": said})] == [
        "replay",
        "reward-ocr",
    ]
