"""A reward built to be hacked raises an alert in a real run, and one that is not raises none."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.run_store.alerts import standing
from tests.train_cases import Running, metrics, toy_run

pytestmark = pytest.mark.integration

NEAR = {"name": "near_data", "kind": "python:tests.train_cases:NearData"}
UPPER = {"name": "upper_half", "kind": "python:services.reward.toy:UpperHalf"}
HEIGHT = {"name": "height", "kind": "python:tests.train_cases:Height"}


def trained_on(runs: Path, reward: dict[str, Any], iterations: int, *heldout: Any) -> Running:
    """A finished run with an evaluation every six iterations."""
    prompts = runs / "heldout.txt"
    prompts.write_text("label 0\nlabel 1\n")
    running = Running(
        toy_run(
            runs,
            run={"iterations": iterations},
            rewards=[reward],
            prompts={"heldout": str(prompts)},
            algorithm={"advantages": {"normaliser": "rolling_std"}},
            evaluation={"num_images": 256, "every": 6, "rewards": list(heldout)},
        )
    )
    running.join()
    assert running.fault is None
    return running


def test_a_reward_that_is_gamed_raises_an_alert_that_says_at_whose_cost(tmp_path: Path) -> None:
    running = trained_on(tmp_path, HEIGHT, 60, NEAR, UPPER)
    before, after = (running.summary["evaluations"][label] for label in ("before", "after"))
    assert after["height"] > before["height"] + 0.1
    assert after["near_data"] < before["near_data"] - 0.2
    assert after["upper_half"] > before["upper_half"]
    lines = [json.loads(line) for line in running.folder.alerts.read_text().splitlines()]
    (alert,) = standing(lines)
    assert (alert["rule"], alert["trained"], alert["heldout"]) == (
        "reward_hacking",
        "height",
        "near_data",
    )
    assert alert["cleared_at"] is None
    assert 0 < alert["step"] <= 60
    assert alert["rise"] > 0.1
    assert alert["fall"] > 0.1
    assert running.folder.status()["alerts"] == [alert]
    assert "is rewarded at the cost of near_data" in running.folder.events.read_text()
    told = [line for line in metrics(running.folder) if "alert/reward_hacking" in line]
    assert (told[0]["alert/reward_hacking"], told[-1]["alert/reward_hacking"]) == (0, 1)
    assert all(
        {"evaluation/student/height", "evaluation/student/near_data"} <= line.keys()
        for line in told
    )


def test_a_reward_that_does_no_harm_raises_none(tmp_path: Path) -> None:
    running = trained_on(tmp_path, UPPER, 36, NEAR, HEIGHT)
    before, after = (running.summary["evaluations"][label] for label in ("before", "after"))
    assert after["upper_half"] > before["upper_half"] + 0.1
    assert after["height"] > before["height"]
    assert not running.folder.alerts.exists()
    assert running.folder.status()["alerts"] == []
