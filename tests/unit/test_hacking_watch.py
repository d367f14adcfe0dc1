"""The watch writes an alert when it is raised and again when it is over."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.config import RunConfig
from services.hacking_watch import HackingWatch, too_few_evaluations
from services.run_store.alerts import AlertLog, standing
from tests.train_cases import toy_run

pytestmark = pytest.mark.unit


def judged_run(tmp_path: Path, iterations: int, weight: float = 1.0, **more: Any) -> RunConfig:
    """A run with a held-out judge; `more` of its evaluation."""
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("label 0\n")
    judge = {"name": "size", "kind": "jpeg_compressibility", "weight": weight}
    return toy_run(
        tmp_path,
        run={"iterations": iterations},
        prompts={"heldout": str(heldout)},
        evaluation={"num_images": 4, "rewards": [judge]} | more,
    )


def watch(tmp_path: Path, weight: float = 1.0) -> HackingWatch:
    config = judged_run(tmp_path, 6, weight, alert_evaluations=1)
    seconds = iter(range(100, 200))
    return HackingWatch(config, AlertLog(tmp_path / "alerts.jsonl"), lambda: float(next(seconds)))


def scores(trained: float, heldout: float) -> dict[str, Any]:
    return {
        "upper_half": trained,
        "upper_half/std_error": 0.01,
        "size": heldout,
        "size/std_error": 0.01,
        "label": "step",
    }


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_an_alert_is_written_when_it_is_raised_and_when_it_is_over(tmp_path):
    used = watch(tmp_path)
    used.see(0, scores(0.4, 0.6))
    assert (lines(tmp_path), used.active) == ([], [])
    used.see(10, scores(0.5, 0.5))
    used.see(20, scores(0.6, 0.4))
    (raised,) = lines(tmp_path)
    assert used.active == [raised]
    assert raised["id"] == "reward_hacking/upper_half/size/1"
    assert (raised["step"], raised["since_step"], raised["time"]) == (10, 0, 101.0)
    assert raised["detail"] == (
        "from iteration 0 to 10 the trained upper_half got better by 0.1 and the held-out size "
        "worse by 0.1"
    )
    used.see(30, scores(0.6, 0.6))
    assert used.active == []
    assert [line["cleared_step"] for line in lines(tmp_path)] == [None, 30]
    assert [alert["cleared_at"] for alert in standing(lines(tmp_path))] == [103.0]


def test_a_held_out_reward_of_negative_weight_is_worse_when_it_rises(tmp_path):
    used = watch(tmp_path, weight=-1.0)
    used.see(0, scores(0.4, 0.6))
    used.see(10, scores(0.5, 0.5))
    assert used.active == []
    used.see(20, scores(0.6, 0.7))
    assert used.active[0]["fall"] == pytest.approx(0.2)


@pytest.mark.parametrize(("iterations", "every", "alerts"), [(6, 0, 1), (200, 1, 0)])
def test_the_more_evaluations_a_run_makes_the_further_a_reward_must_fall(
    tmp_path, iterations, every, alerts
):
    config = judged_run(tmp_path, iterations, every=every, alert_evaluations=1)
    used = HackingWatch(config, AlertLog(tmp_path / "alerts.jsonl"))
    used.see(0, scores(0.4, 0.6))
    used.see(1, scores(0.5, 0.55))  # by 3.5 standard errors
    assert len(used.active) == alerts


def test_a_reward_without_a_score_is_no_reason(tmp_path):
    used = watch(tmp_path)
    used.see(0, scores(0.4, 0.6))
    used.see(10, {"upper_half": 0.5, "upper_half/std_error": 0.01, "size/missing": 4.0})
    assert used.active == []


@pytest.mark.parametrize(
    ("every", "iterations", "alert_evaluations", "evaluations"),
    [
        (0, 6, 2, 2),
        (0, 0, 2, 2),
        (0, 6, 1, None),
        (6, 6, 2, 2),  # the sixth is the last, and evaluated after training
        (5, 6, 2, None),
        (2, 6, 3, None),  # before, 2, 4, after
        (2, 6, 4, 4),
    ],
)
def test_a_run_with_too_few_evaluations_for_an_alert_is_told_so_at_its_start(
    tmp_path, caplog, every, iterations, alert_evaluations, evaluations
):
    config = judged_run(tmp_path, iterations, every=every, alert_evaluations=alert_evaluations)
    HackingWatch(config, AlertLog(tmp_path / "alerts.jsonl"))
    if evaluations is None:
        assert caplog.messages == []
        return
    (warning,) = caplog.messages
    assert (
        f"evaluation.every={every} there are {evaluations} evaluations in {iterations}" in warning
    )
    assert f"takes {alert_evaluations + 1} " in warning


@pytest.mark.parametrize("evaluation", [{"rewards": []}, {"num_images": 0}])
def test_a_run_that_evaluates_nothing_held_out_is_told_nothing(tmp_path, evaluation):
    assert too_few_evaluations(judged_run(tmp_path, 6)) is not None
    assert too_few_evaluations(judged_run(tmp_path, 6, **evaluation)) is None


def test_lines_without_an_id_are_alerts_of_their_own():
    assert standing([{"rule": "a"}, {"rule": "a"}]) == [{"rule": "a"}, {"rule": "a"}]
