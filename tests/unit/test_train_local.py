"""Whole runs on the local runtime: the numbers of one_file, async bounds, orders, commands."""

import json
import math
from pathlib import Path

import pytest
import torch

from examples.one_file import GOLDEN, TOY
from examples.one_file import train as one_file_train
from services.checkpoint import load_checkpoint
from services.commands.evaluate import evaluate
from services.config import RunConfig, config_hash
from services.run_store import commands
from services.run_store.images import ImageStore
from services.run_store.retention import digests_of
from services.train import train
from tests.train_cases import HELD_OUT, PROMPTS, Running, metrics, numbers, reward, toy_run

pytestmark = pytest.mark.unit


def test_a_local_run_has_the_numbers_of_one_file_to_the_bit(tmp_path: Path) -> None:
    running = Running(toy_run(tmp_path))
    running.join()
    torch.set_num_threads(1)
    expected = list(one_file_train(TOY, 6))
    lines = metrics(running.folder)
    assert len(lines) == 6
    for line, wanted in zip(lines, expected, strict=True):
        assert {name: line[name] for name in GOLDEN} == {name: wanted[name] for name in GOLDEN}


def test_colocated_and_split_agree_in_either_order(tmp_path: Path) -> None:
    for order in ("gauss_seidel", "jacobi"):
        found = []
        for placement in ("split", "colocated"):
            config = toy_run(
                tmp_path / order / placement,
                algorithm={"update_order": order},
                cluster={"placement": placement},
            )
            running = Running(config)
            running.join()
            assert running.fault is None
            found.append(numbers(running.folder))
        assert found[0] == found[1], order


def test_an_async_run_stays_finite_and_within_its_staleness(tmp_path: Path) -> None:
    config = toy_run(
        tmp_path,
        run={"iterations": 12},
        algorithm={"replay": {"max_staleness_generator": 1, "max_staleness_surrogate": 3}},
        cluster={"rollout_groups": 2},
    )
    running = Running(config)
    running.join()
    assert running.summary["state"] == "finished"
    assert running.summary["policy_version"] == 12
    assert running.summary["surrogate_version"] >= 6
    lines = metrics(running.folder)
    assert len(lines) == 12
    assert all(math.isfinite(v) for line in lines for v in line.values() if v is not None)
    assert max(line["replay/staleness_generator_max"] for line in lines) <= 1
    assert max(line.get("replay/staleness_surrogate_max", 0) for line in lines) <= 3


def test_the_async_generator_does_not_wait_for_rewards(tmp_path: Path) -> None:
    judge = reward("python:tests.train_cases:WaitingReward", options={"file": f"{tmp_path}/go"})
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 1000}
    config = toy_run(
        tmp_path, run={"iterations": 10}, algorithm={"replay": replay}, rewards=[judge]
    )
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) == 10)
    (tmp_path / "go").touch()
    running.join()
    assert running.summary["policy_version"] == 10
    assert running.summary["surrogate_version"] == 0


def behind(folder: Path, on_failure: str) -> RunConfig:
    """An async run of two rewards, of which one answers to nothing until `folder/go` is there."""
    options = {"options": {"file": f"{folder}/go"}, "on_failure": on_failure}
    late = reward("python:tests.train_cases:WaitingReward", queue_deadline_s=0.1, **options)
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 1000}
    return toy_run(
        folder,
        run={"iterations": 100_000},
        algorithm={"replay": replay},
        rewards=[reward(), {**late, "name": "late", "deadline_s": 0.5}],
        telemetry={"images_every": 1},
    )


def test_a_reward_that_is_behind_does_not_take_the_others_groups_along(tmp_path: Path) -> None:
    running = Running(behind(tmp_path, "drop_sample"))
    running.until(lambda status: status.get("surrogate_version", 0) >= 2)
    commands.request(running.folder.path, "stop")
    (tmp_path / "go").touch()
    running.join()
    assert running.fault is None
    line = next(x for x in metrics(running.folder) if x.get("reward/late/expired/queue", 0) > 0)
    assert line["reward/late/expired"] >= 16
    said = [line["rewards"] for line in ImageStore(running.folder.images).index()]
    lost = [each for each in said if each["late"]["state"] == "expired"]
    assert {each["upper_half"]["state"] for each in lost} == {"ready"}
    assert "no worker was free within queue_deadline_s=0.1" in {x["late"]["reason"] for x in lost}


def test_a_reward_that_may_miss_nothing_ends_the_run_when_it_is_behind(tmp_path: Path) -> None:
    running = Running(behind(tmp_path, "stop_run"))
    running.join()
    assert isinstance(running.fault, RuntimeError)
    assert "reward 'late' has no value for a group and its on_failure is stop_run" in str(
        running.fault
    )


def test_a_reward_that_stops_the_run_ends_it_with_its_traceback(tmp_path: Path) -> None:
    broken = reward("python:tests.train_cases:BrokenReward", on_failure="stop_run", retries=0)
    running = Running(toy_run(tmp_path, rewards=[broken]))
    running.join()
    assert isinstance(running.fault, RuntimeError)
    status = running.folder.status()
    assert status["state"] == "failed"
    assert "the judge is out to lunch" in status["error"]
    assert "in evaluate" in status["error"]
    assert "the judge is out to lunch" in running.folder.events.read_text()


def test_commands_pause_checkpoint_unpause_and_stop_a_run(tmp_path: Path) -> None:
    config = toy_run(tmp_path, run={"iterations": 100_000}, telemetry={"images_every": 0})
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) >= 3)
    pause = commands.request(running.folder.path, "pause")
    running.until(lambda status: status["state"] == "paused")
    assert commands.read(running.folder.path, pause).state == "applied"
    at = running.folder.status()["iteration"]
    checkpoint = commands.request(running.folder.path, "checkpoint")
    unpause = commands.request(running.folder.path, "unpause")
    running.until(lambda status: status["iteration"] > at)
    assert (running.folder.checkpoints / f"step_{at:06d}" / "manifest.json").is_file()
    stop = commands.request(running.folder.path, "stop")
    running.join()
    for identity in (checkpoint, unpause, stop):
        assert commands.read(running.folder.path, identity).state == "applied"
    assert running.summary["state"] == "stopped"
    assert running.summary["reason"] == "told to stop"
    assert Path(running.summary["checkpoint"]).is_dir()
    assert running.folder.status()["state"] == "stopped"
    assert running.folder.summary() == running.summary


def test_an_async_run_is_paused_and_stopped_too(tmp_path: Path) -> None:
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 3}
    config = toy_run(tmp_path, run={"iterations": 100_000}, algorithm={"replay": replay})
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) >= 3)
    commands.request(running.folder.path, "pause")
    running.until(lambda status: status["state"] == "paused")
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    assert running.summary["state"] == "stopped"


def test_a_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    config = toy_run(tmp_path, run={"iterations": 100_000, "max_seconds": 0.5})
    running = Running(config)
    running.join()
    assert running.summary["state"] == "stopped"
    assert "max_seconds=0.5" in running.summary["reason"]
    assert 0 < running.summary["iterations"] < 100_000


def test_rollout_images_lie_in_the_store_with_what_the_reward_said(tmp_path: Path) -> None:
    telemetry = {"images_every": 2, "images_per_group": 3, "predictions_per_group": 2}
    running = Running(toy_run(tmp_path, run={"iterations": 4}, telemetry=telemetry))
    running.join()
    store = ImageStore(running.folder.images)
    lines = list(store.index())
    assert len(lines) == 2 * 4 * 3
    assert {line["step"] for line in lines} == {0, 2}
    assert all(store.path(line["digest"]).is_file() for line in lines)
    said = [line["rewards"]["upper_half"] for line in lines]
    assert {verdict["value"] for verdict in said} == {0.0, 1.0}
    assert {verdict["version"] for verdict in said} == {"1"}
    assert all(0 < verdict["latency_s"] < 60 for verdict in said)
    assert lines[0]["prompt"] in ("label 0", "label 1")
    assert [len(line["predictions"]) for line in lines] == [3, 3, 0] * 8
    before_last = {digest for line in lines for digest in line["predictions"]}
    assert all(store.path(digest).is_file() for digest in before_last)
    assert lines[0]["sigmas"][0] > lines[0]["sigmas"][-1] == 0


def test_eval_gives_the_scores_of_the_run_s_own_last_evaluation(tmp_path: Path, capsys) -> None:
    config = toy_run(
        tmp_path,
        prompts={"heldout": str(PROMPTS.absolute())},
        evaluation={"num_images": 40, "batch_size": 16},
    )
    running = Running(config)
    running.join()
    evaluate("run", tmp_path, None, "ema", None, as_json=True)
    scores = json.loads(capsys.readouterr().out)
    names = {"upper_half", "upper_half/std_error", "upper_half/missing", "num_images"}
    after = running.summary["evaluations"]["after"]
    assert {name: scores[name] for name in names} == {name: after[name] for name in names}


def test_no_evaluation_takes_the_place_of_another_that_no_line_has_told(tmp_path: Path) -> None:
    config = toy_run(
        tmp_path,
        run={"iterations": 0},
        prompts={"heldout": str(PROMPTS.absolute())},
        evaluation={"num_images": 4},
    )
    running = Running(config)
    running.join()
    told = [line["evaluation/student/upper_half"] for line in metrics(running.folder)]
    scores = running.summary["evaluations"].values()
    assert told == [found["upper_half"] for found in scores]
    assert len(told) == 2


def test_a_run_keeps_the_images_of_its_last_iterations_and_of_its_evaluations(
    tmp_path: Path,
) -> None:
    telemetry = {"images_every": 1, "retention": {"last_iterations": 2}}
    running = Running(toy_run(tmp_path, run={"iterations": 4}, telemetry=telemetry, **HELD_OUT))
    running.join()
    store = ImageStore(running.folder.images)
    lines = store.index()
    kept = {line["digest"] for line in lines if line["step"] >= 2}
    assert {line["digest"] for line in lines if store.path(line["digest"]).exists()} == kept
    there = {path.stem for path in running.folder.images.rglob("*.png")}
    named = [(line["step"], digest) for line in lines for digest in digests_of(line)]
    assert there == {digest for step, digest in named if step >= 2}
    held_out = ImageStore(running.folder.path / "evaluations")
    images = [image for line in held_out.index() for image in line.get("images", [])]
    assert len(images) == 5 * 4
    assert all(held_out.path(image["digest"]).exists() for image in images)


def test_a_checkpoint_holds_every_role_and_the_place_in_the_prompts(tmp_path: Path) -> None:
    config = toy_run(tmp_path, run={"iterations": 4}, checkpoint={"every": 2, "keep": 1})
    summary = train(config)
    parts, facts = load_checkpoint(Path(summary["checkpoint"]), config_hash=config_hash(config))
    roles = {"generator", "fake_score", "surrogate", "surrogate_ema", "generator_ema", "replay"}
    optimizers = {f"{role}_optimizer" for role in ("generator", "fake_score", "surrogate")}
    assert parts.keys() == roles | optimizers
    assert (facts["iteration"], facts["policy_version"]) == (4, 4)
    assert facts["prompts"]["position"] == 16
    assert facts["workers"].keys() == {"generator", "surrogate", "replay"}
    assert [path.name for path in Path(summary["checkpoint"]).parent.iterdir()] == ["step_000004"]
