"""Workers and groups that fail or kill again and again, on real Ray: what ends and what goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.run_store import commands
from services.runtime.cluster import ClusterHandle, _Processes
from services.runtime.handles import HostSpec
from services.runtime.waiting import Patience
from tests.one_ray import one_ray
from tests.train_cases import Running, metrics, reward, toy_run

pytestmark = pytest.mark.integration

ON_RAY = {"runtime": "ray", "engine": "torch"}
CASES = "python:tests.train_cases"


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """One Ray for the module; runs join it and leave it running."""
    with one_ray(num_cpus=8):
        yield


def test_an_excused_death_leaves_its_restart_for_another() -> None:
    processes = _Processes(HostSpec("w0", {}, restartable=True), {}, max_restarts=2)
    processes.restarts = 2
    assert not processes.may_restart
    ClusterHandle("w0", processes, Patience()).excuse()
    assert processes.may_restart
    processes.restarts = 3
    assert not processes.may_restart


@pytest.mark.long
def test_two_groups_that_workers_die_of_do_not_use_up_the_restarts(
    tmp_path: Path, ray_cluster: None
) -> None:
    deadly = reward(f"{CASES}:DeadlyReward", options={"group_id": 0, "more": [2]}, batch_size=16)
    running = Running(toy_run(tmp_path, run={"iterations": 1}, rewards=[deadly], cluster=ON_RAY))
    running.join(600)
    assert running.fault is None
    (line,) = metrics(running.folder)
    assert line["reward/upper_half/failed/killed"] == line["reward/upper_half/failed"] == 32
    assert running.folder.status()["workers"]["reward-upper_half-0"]["restarts"] == 4


@pytest.mark.long
def test_a_worker_that_dies_of_everything_ends_the_run(tmp_path: Path, ray_cluster: None) -> None:
    deadly = reward(
        f"{CASES}:DeadlyReward", options={"group_id": 0, "more": [1, 2, 3]}, batch_size=16
    )
    config = toy_run(
        tmp_path, run={"iterations": 1}, rewards=[deadly], cluster={**ON_RAY, "max_restarts": 2}
    )
    running = Running(config)
    running.join(600)
    assert "reward-upper_half-0 died: 2 restarts were not enough" in str(running.fault)


@pytest.mark.long
def test_a_worker_whose_calls_hang_is_started_anew_and_then_judges(
    tmp_path: Path, ray_cluster: None
) -> None:
    (tmp_path / "hold").touch()
    judge = reward(
        f"{CASES}:HeldReward", options={"folder": str(tmp_path)}, batch_size=16, deadline_s=0.1
    )
    config = toy_run(
        tmp_path,
        run={"iterations": 100_000},
        algorithm={
            "replay": {
                "max_staleness_generator": 1,
                "max_staleness_surrogate": 1000,
                "capacity_groups": 64,
            }
        },
        rewards=[judge],
        cluster=ON_RAY,
    )
    running = Running(config)
    running.until(
        lambda status: (
            status.get("workers", {}).get("reward-upper_half-0", {}).get("restarts") == 1
        ),
        seconds=600,
    )
    (tmp_path / "hold").unlink()
    running.until(
        lambda status: any("reward/upper_half/mean" in line for line in metrics(running.folder)),
        seconds=600,
    )
    commands.request(running.folder.path, "stop")
    running.join(600)
    assert running.fault is None
    told = running.folder.events.read_text()
    assert "it was ended, since 4 calls of the reward still hang, past deadline_s=0.1" in told
    assert "restart 1 of 3" in told


@pytest.mark.long
def test_a_worker_that_fails_alone_is_started_anew_and_no_image_is_lost(
    tmp_path: Path, ray_cluster: None
) -> None:
    judge = reward(
        f"{CASES}:OnceBroken",
        options={"folder": str(tmp_path)},
        num_workers=2,
        batch_size=16,
        retries=0,
    )
    running = Running(toy_run(tmp_path, rewards=[judge], cluster=ON_RAY))
    running.join(600)
    assert running.fault is None
    lines = metrics(running.folder)
    assert sum(line.get("reward/upper_half/handed_over", 0) for line in lines) == 1
    assert {line["reward/upper_half/failed"] for line in lines} == {0}
    told = running.folder.events.read_text()
    assert "another worker could do what it failed at: RuntimeError: no GPU" in told
