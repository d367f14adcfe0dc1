"""Whole runs on real Ray: the local runtime's numbers, deaths, tracebacks, commands."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.run_store import commands
from services.runtime.handles import WorkerDiedError
from tests.one_ray import one_ray
from tests.train_cases import Running, metrics, numbers, reward, toy_run

pytestmark = pytest.mark.integration

ASYNC = {"max_staleness_generator": 1, "max_staleness_surrogate": 4}


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    """One Ray for the module; runs join it and leave it running."""
    with one_ray(num_cpus=8):
        yield


def on_ray(**more: object) -> dict[str, object]:
    """The cluster section of a run on Ray."""
    return {"runtime": "ray", "engine": "torch", **more}


def test_ray_has_the_numbers_of_the_local_runtime_to_the_bit(tmp_path: Path) -> None:
    local, split = Running(toy_run(tmp_path / "local")), None
    local.join()
    split = Running(toy_run(tmp_path / "split", cluster=on_ray(), run={"name": "split"}))
    split.join()
    assert split.fault is None
    assert len(numbers(split.folder)) == 6
    assert numbers(split.folder) == numbers(local.folder)


def test_one_process_for_all_networks_has_the_same_numbers(tmp_path: Path) -> None:
    order = {"update_order": "jacobi"}
    local = Running(toy_run(tmp_path / "local", algorithm=order))
    local.join()
    cluster = on_ray(placement="colocated")
    colocated = Running(toy_run(tmp_path / "ray", algorithm=order, cluster=cluster))
    colocated.join()
    assert colocated.fault is None
    assert numbers(colocated.folder) == numbers(local.folder)


def test_an_async_run_survives_the_deaths_of_rollout_and_reward_workers(tmp_path: Path) -> None:
    cluster = on_ray(num_rollout_workers=2, rollout_groups=2)
    config = toy_run(
        tmp_path, run={"iterations": 100_000}, algorithm={"replay": ASYNC}, cluster=cluster
    )
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) >= 3)
    hosts = ("rollout-0", "rollout-1", "reward-upper_half-0")
    killed = {host: running.kill(host) for host in hosts}
    for host, process in killed.items():
        running.until(lambda status, host=host: status["workers"][host]["restarts"] == 1)
        running.until(lambda status, host=host: status["workers"][host]["alive"])
        assert running.folder.status()["workers"][host]["pids"] != [process]
    at = running.folder.status()["iteration"]
    running.until(lambda status: status["iteration"] > at + 5)
    commands.request(running.folder.path, "scale", {"pool": "rollout", "workers": 1})
    running.until(lambda status: "rollout-1" not in status["workers"])
    at = running.folder.status()["iteration"]
    running.until(lambda status: status["iteration"] > at + 5)
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    lines = metrics(running.folder)
    assert [lines[0]["rollout/workers"], lines[-1]["rollout/workers"]] == [2, 1]
    assert all(math.isfinite(v) for line in lines for v in line.values() if v is not None)
    assert max(line["replay/staleness_generator_max"] for line in lines) <= 1
    assert max(line.get("replay/staleness_surrogate_max", 0) for line in lines) <= 4
    assert "worker rollout-0 died" in running.folder.events.read_text()


def test_rollout_workers_come_and_go_and_change_no_number(tmp_path: Path) -> None:
    shape = {"rollout_groups": 1, "max_rollout_workers": 2}
    config = toy_run(tmp_path / "ray", run={"iterations": 100_000}, cluster=on_ray(**shape))
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) >= 1)
    for workers in (2, 1):
        commands.request(running.folder.path, "scale", {"pool": "rollout", "workers": workers})
        running.until(lambda status, n=workers: status["pools"]["rollout"]["workers"] == n)
        at = running.folder.status()["iteration"]
        running.until(lambda status, at=at: status["iteration"] > at + 2)
    refused = commands.request(running.folder.path, "scale", {"pool": "rollout", "workers": 3})
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    assert "3 workers: allowed 1 to 2" in commands.read(running.folder.path, refused).reason
    found, done = numbers(running.folder), running.summary["iterations"]
    assert {line.pop("rollout/workers") for line in found} == {1, 2}
    local = toy_run(tmp_path / "local", run={"iterations": done}, cluster={"rollout_groups": 1})
    undisturbed = Running(local)
    undisturbed.join()
    wanted = numbers(undisturbed.folder)
    assert {line.pop("rollout/workers") for line in wanted} == {1}
    assert found == wanted
    assert running.summary["rollout_images"] == done * 4 * 16


def test_two_deepspeed_ranks_train_as_one_does(tmp_path: Path) -> None:
    single = {"model": {"dtype": "float32"}, "run": {"iterations": 4}}
    one = Running(toy_run(tmp_path / "one", **single))
    one.join()
    cluster = on_ray(engine="deepspeed", zero_stage=2, generator_ranks=2, surrogate_ranks=2)
    two = Running(toy_run(tmp_path / "two", **single, cluster=cluster))
    two.join()
    assert two.fault is None
    for line, wanted in zip(metrics(two.folder), metrics(one.folder), strict=True):
        for name in ("surrogate/preference", "fake_score/matching", "generator/grad_norm"):
            assert line[name] == pytest.approx(wanted[name], rel=1e-3), name


@pytest.mark.parametrize(("host", "rank"), [("generator", 1), ("replay", 0)])
def test_the_death_of_a_worker_with_state_ends_the_run_naming_it(
    tmp_path: Path, host: str, rank: int
) -> None:
    cluster = on_ray(generator_ranks=1 + rank)
    running = Running(toy_run(tmp_path, run={"iterations": 100_000}, cluster=cluster))
    running.until(lambda status: status.get("iteration", 0) >= 2)
    running.kill(host, rank)
    running.join()
    assert isinstance(running.fault, WorkerDiedError)
    assert running.fault.host == host
    status = running.folder.status()
    assert status["state"] == "failed"
    assert f"worker {host} died" in status["error"]


def test_a_worker_that_raises_ends_the_run_with_its_own_traceback(tmp_path: Path) -> None:
    broken = reward("python:tests.train_cases:BrokenReward", on_failure="stop_run", retries=0)
    running = Running(toy_run(tmp_path, rewards=[broken], cluster=on_ray()))
    running.join()
    assert type(running.fault).__name__ == "RewardError"
    status = running.folder.status()
    assert "the judge is out to lunch" in status["error"]
    assert "reward/worker.py" in status["error"]


def test_a_paused_run_says_so_and_goes_on_when_told(tmp_path: Path) -> None:
    config = toy_run(
        tmp_path, run={"iterations": 100_000}, algorithm={"replay": ASYNC}, cluster=on_ray()
    )
    running = Running(config)
    running.until(lambda status: status.get("iteration", 0) >= 2)
    commands.request(running.folder.path, "pause")
    running.until(lambda status: status["state"] == "paused")
    at = running.folder.status()["iteration"]
    commands.request(running.folder.path, "unpause")
    running.until(lambda status: status["iteration"] > at + 2)
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.summary["state"] == "stopped"
    assert Path(running.summary["checkpoint"]).is_dir()
