"""Reward pools on real Ray: nothing is lost, the numbers stay, the pool follows its queue."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.run_store import commands
from services.run_store.images import ImageStore
from services.run_store.run_folder import RunFolder
from tests.one_ray import one_ray
from tests.train_cases import PROMPTS, Running, metrics, numbers, reward, toy_run

pytestmark = pytest.mark.integration

ON_RAY = {"runtime": "ray", "engine": "torch"}
ASYNC = {"max_staleness_generator": 1, "max_staleness_surrogate": 1000, "capacity_groups": 64}
CASES = "python:tests.train_cases"


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    """One Ray for the module; runs join it and leave it running."""
    with one_ray(num_cpus=8):
        yield


def workers(status: dict[str, Any]) -> dict[str, bool]:
    """Reward worker to whether it is alive."""
    found = status.get("workers", {})
    return {name: each["alive"] for name, each in found.items() if name.startswith("reward-")}


def endless_run(runs: Path, judge: dict[str, Any], **cluster: Any) -> Running:
    """An async run with one reward, until it is told to stop."""
    config = toy_run(
        runs,
        run={"iterations": 100_000},
        algorithm={"replay": ASYNC},
        rewards=[judge],
        cluster=ON_RAY | cluster,
    )
    return Running(config)


def index(folder: RunFolder) -> list[dict[str, Any]]:
    """What is stored of a run's images."""
    return list(ImageStore(folder.images).index())


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"no {path} within {seconds} s"
        time.sleep(0.02)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_killed_at_its_batch_loses_nothing(tmp_path: Path, num_workers: int) -> None:
    judge = reward(
        f"{CASES}:HeldReward",
        options={"folder": str(tmp_path)},
        num_workers=num_workers,
        batch_size=32,
    )
    undisturbed = Running(toy_run(tmp_path / "local", rewards=[judge]))
    undisturbed.join()
    (tmp_path / "busy").unlink()
    (tmp_path / "hold").touch()
    running = Running(toy_run(tmp_path / "ray", rewards=[judge], cluster=ON_RAY))
    wait_for(tmp_path / "busy")
    process = int((tmp_path / "busy").read_text())
    (victim,) = (
        name for name, each in running.folder.status()["workers"].items() if process in each["pids"]
    )
    assert victim.startswith("reward-upper_half-")
    os.kill(process, signal.SIGKILL)
    time.sleep(0.2)
    (tmp_path / "hold").unlink()
    running.join()
    assert running.fault is None
    assert f"worker {victim} died" in running.folder.events.read_text()
    assert sum(line.get("reward/upper_half/reissued", 0) for line in metrics(running.folder)) >= 1
    kept = [
        {name: value for name, value in line.items() if not name.endswith(("reissued", "workers"))}
        for line in numbers(running.folder)
    ]
    wanted = [
        {name: value for name, value in line.items() if not name.endswith("workers")}
        for line in numbers(undisturbed.folder)
    ]
    assert kept == wanted


def test_a_group_that_workers_die_of_has_failed_and_the_others_are_judged(tmp_path: Path) -> None:
    judge = reward(f"{CASES}:DeadlyReward", options={"group_id": 2}, batch_size=16)
    shape = {"run": {"iterations": 1}, "telemetry": {"images_every": 1, "images_per_group": 1}}
    running = Running(toy_run(tmp_path, rewards=[judge], cluster=ON_RAY, **shape))
    running.join()
    assert running.fault is None
    (line,) = metrics(running.folder)
    assert (line["reward/upper_half/failed/killed"], line["reward/upper_half/failed"]) == (16, 16)
    assert running.folder.status()["workers"]["reward-upper_half-0"]["restarts"] == 2
    stored = {each["group_id"]: each["rewards"]["upper_half"] for each in index(running.folder)}
    assert stored[2]["state"] == "failed"
    assert "2 workers died of it: worker reward-upper_half-0 died" in stored[2]["reason"]
    assert {stored[group_id]["state"] for group_id in (0, 1, 3)} == {"ready"}


def test_several_rewards_in_small_batches_have_the_same_bits_on_both_runtimes(
    tmp_path: Path,
) -> None:
    rewards = [
        reward(batch_size=40, num_workers=2),
        {**reward("ranked", options={"kind": "python:services.reward.toy:UpperHalf"}), "name": "r"},
    ]
    shape = {"rollout_groups": 3}
    found = []
    for name, cluster in (("local", {}), ("ray", ON_RAY)):
        config = toy_run(
            tmp_path / name,
            rewards=rewards,
            cluster={**shape, **cluster},
            prompts={"heldout": str(PROMPTS.absolute())},
            evaluation={"num_images": 40, "batch_size": 24, "every": 4},
        )
        running = Running(config)
        running.join()
        assert running.fault is None
        found.append(numbers(running.folder))
    assert found[0] == found[1]
    before, line, *_ = found[0]
    assert before["evaluation/student/r/value"] != before["evaluation/student/upper_half"]
    assert [x["evaluation/student/iteration"] for x in found[0] if "evaluation/student/r" in x] == [
        0,
        4,
        6,
    ]
    assert line["reward/upper_half/batches"] == 3  # calls of 3 and 1 groups of 16, 40 in a batch
    assert line["reward/upper_half/batch_fill"] == pytest.approx(64 / 120)


def test_a_pool_follows_its_queue_up_and_down_and_mends_what_it_hired(tmp_path: Path) -> None:
    judge = reward(
        f"{CASES}:SlowReward",
        options={"seconds": 0.5},
        batch_size=16,
        max_workers=3,
        scale_up_after_s=0.3,
        scale_down_after_s=1.0,
    )
    running = endless_run(tmp_path, judge)
    all_three = {f"reward-upper_half-{i}": True for i in range(3)}
    running.until(lambda status: workers(status) == all_three)
    running.kill("reward-upper_half-1")
    running.until(lambda status: status["workers"]["reward-upper_half-1"]["restarts"] == 1)
    running.until(lambda status: workers(status) == all_three)
    commands.request(running.folder.path, "pause")
    running.until(lambda status: workers(status) == {"reward-upper_half-0": True})
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    assert max(line["reward/upper_half/workers"] for line in metrics(running.folder)) == 3


def test_a_worker_that_finds_no_room_is_waited_for_by_nobody(tmp_path: Path) -> None:
    judge = reward(
        f"{CASES}:SlowReward",
        options={"seconds": 0.2},
        batch_size=16,
        num_cpus=5,
        max_workers=2,
        scale_up_after_s=0.1,
    )
    running = endless_run(tmp_path, judge, heartbeat_s=1.0, max_rollout_workers=2)
    running.until(lambda status: "reward-upper_half-1" in workers(status))
    commands.request(running.folder.path, "scale", {"pool": "rollout", "workers": 2})
    running.until(lambda status: "rollout-1" in status["workers"])
    running.until(lambda status: len(status.get("waiting", [])) >= 2)
    at = running.folder.status()["iteration"]
    running.until(lambda status: status["iteration"] > at + 5)
    assert workers(running.folder.status()) == {
        "reward-upper_half-0": True,
        "reward-upper_half-1": False,
    }
    for name in ("reward-upper_half-1", "rollout-1"):
        assert running.folder.status()["workers"][name]["pids"] == []
        assert f"{name} to start (Ray has" in running.folder.events.read_text()
    sizes = {"workers": 1, "fewest": 1, "most": 2, "held": 2, "automatic": False}
    assert running.folder.status()["pools"]["rollout"] == sizes
    commands.request(running.folder.path, "scale", {"pool": "rollout", "workers": 1})
    running.until(lambda status: "rollout-1" not in status["workers"])
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None


def test_what_a_reward_lacks_on_its_worker_ends_the_run_at_its_start(tmp_path: Path) -> None:
    running = Running(
        toy_run(tmp_path, rewards=[reward(f"{CASES}:UnpreparedReward")], cluster=ON_RAY)
    )
    running.join()
    assert isinstance(running.fault, ValueError)
    assert "cannot work here: No module named 'no_such_engine'" in str(running.fault)
    assert running.folder.status()["state"] == "failed"
    assert metrics(running.folder) == []


def test_evaluations_run_beside_training_and_are_of_the_iteration_they_began_at(
    tmp_path: Path,
) -> None:
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("label 0\nlabel 1\n")
    judge = reward(f"{CASES}:HeldReward", options={"folder": str(tmp_path)}, num_workers=2)
    running = Running(
        toy_run(
            tmp_path,
            run={"iterations": 100_000, "max_seconds": 60},
            algorithm={"replay": ASYNC},
            rewards=[reward()],
            prompts={"heldout": str(heldout)},
            evaluation={"num_images": 32, "every": 5, "rewards": [{**judge, "name": "upper"}]},
            cluster=ON_RAY,
        )
    )
    running.until(lambda status: status.get("state") == "running")
    assert {"reward-upper-0", "reward-upper-1"} <= workers(running.folder.status()).keys()
    (tmp_path / "hold").touch()
    (tmp_path / "busy").unlink()
    wait_for(tmp_path / "busy")
    began = running.folder.status()["iteration"]
    running.until(lambda status: status["iteration"] >= began + 10)
    (tmp_path / "hold").unlink()
    running.until(
        lambda status: any("evaluation/student/iteration" in x for x in metrics(running.folder)[5:])
    )
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    before, found, *_ = running.summary["evaluations"].values()
    assert (before["iteration"], before["policy_version"]) == (0, 0)
    assert found["iteration"] == found["policy_version"] <= began
    assert found["upper"] == found["upper_half"]
    line = next(x for x in metrics(running.folder) if x.get("evaluation/student/iteration"))
    assert line["evaluation/student/iteration"] == found["iteration"] <= line["step"] - 10
    assert "is left out, since" in running.folder.events.read_text()


def test_a_groupwise_reward_teaches_the_generator(tmp_path: Path) -> None:
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("label 0\nlabel 1\n")
    ranks = {**reward("ranked", options={"kind": "python:services.reward.toy:UpperHalf"})}
    running = Running(
        toy_run(
            tmp_path,
            run={"iterations": 30},
            rewards=[{**ranks, "name": "rank"}],
            prompts={"heldout": str(heldout)},
            evaluation={"num_images": 256, "rewards": [reward()]},
            cluster=ON_RAY,
        )
    )
    running.join()
    assert running.fault is None
    before, after = (running.summary["evaluations"][label] for label in ("before", "after"))
    assert after["upper_half"] > before["upper_half"] + 0.1
    assert metrics(running.folder)[0]["reward/rank/mean"] == pytest.approx(0.5)
