"""Ray actors behind the same handles: references, tracebacks, deaths and restarts."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from services.runtime.cluster import ClusterRuntime
from services.runtime.handles import Handle, HireFailedError, HostSpec, Recipe, WorkerDiedError
from services.runtime.pool import Pool
from services.runtime.staff import Staff
from services.runtime.waiting import Patience
from tests.one_ray import one_ray

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def ray_cluster():
    """One Ray for the module; a runtime joins it and leaves it running."""
    with one_ray(num_cpus=4):
        yield


def host(name: str = "maker", **more: Any) -> HostSpec:
    """A host of one Maker."""
    recipe = Recipe("tests.integration.cluster_workers:Maker")
    return HostSpec(name, {name: recipe}, **{"num_cpus": 0.1, **more})


async def resync_nothing(name: str) -> None:
    """These have no state of a run."""


def run(scenario, *hosts: HostSpec, max_restarts: int = 1) -> Any:
    """Run `scenario(handles, runtime)`; the run's end is also the end of its actors."""

    async def main() -> object:
        runtime = ClusterRuntime(Patience(deadline_s=60), max_restarts=max_restarts)
        try:
            handles = await runtime.start(hosts or (host(),))
            return await scenario(handles, runtime)
        finally:
            await runtime.close()

    return asyncio.run(main())


def test_values_go_from_worker_to_worker_as_references() -> None:
    async def scenario(handles, runtime):
        maker, reader = handles.values()
        await maker.load.remote(2)
        full, empty = maker.make.remote(100_000, num_returns=2)
        assert await full.settled() >= 0
        totals = [await reader.total.remote(full), await reader.total.remote(empty)]
        return totals, float((await full).sum()), await maker.surroundings.remote()

    totals, fetched, found = run(scenario, host("maker", threads=2), host("reader"))
    assert totals == [200_000.0, 0.0]
    assert fetched == 200_000.0
    assert found == {
        "threads": 2,
        "omp": "2",
        "policy": "PASSIVE",
        "directory_on_path": True,
        "place": (0, 1, ""),
    }


def test_a_worker_that_raises_ends_with_its_own_error_and_traceback() -> None:
    async def scenario(handles, runtime):
        maker, reader = handles.values()
        for reference in (maker.fail.remote(), reader.total.remote(maker.fail.remote())):
            with pytest.raises(ValueError, match="surrogate got NaN") as caught:
                await reference
            assert type(caught.value) is ValueError
            (note,) = caught.value.__notes__
            assert "in fail" in note
            assert "cluster_workers.py" in note

    run(scenario, host("maker"), host("reader"))


def test_a_worker_that_cannot_be_made_raises_what_its_constructor_raised() -> None:
    broken = HostSpec("broken", {"b": Recipe("tests.integration.cluster_workers:Unbuildable")})

    async def scenario(handles, runtime):
        raise AssertionError("it started")

    with pytest.raises(ValueError, match="'nowhere' is not a folder"):
        run(scenario, broken)


def test_a_rank_group_answers_with_rank_0_and_fails_with_any_rank() -> None:
    async def scenario(handles, runtime):
        learner = handles["learner"]
        found = await learner.surroundings.remote()
        start = time.monotonic()
        with pytest.raises(ValueError, match="rank 1 cannot go on"):
            await learner.fail_or_hang.remote()
        return found["place"], time.monotonic() - start

    (rank, world_size, rendezvous), seconds = run(scenario, host("learner", ranks=2))
    assert (rank, world_size) == (0, 2)
    assert ":" in rendezvous
    assert seconds < 20


def test_a_killed_pool_worker_is_restarted_resynced_and_its_work_done_again(tmp_path) -> None:
    async def scenario(handles, runtime):
        async def resync(name: str) -> None:
            await handles[name].load.remote(7)

        supervisor = asyncio.create_task(runtime.supervise(resync))
        pool = Pool(Staff(list(handles.values())))
        answer, _ = await pool.run("die_once", str(tmp_path / "died"))
        value = await answer
        supervisor.cancel()
        return value, runtime.processes()["rollout-0"]["restarts"]

    assert run(scenario, host("rollout-0", restartable=True)) == (7, 1)


def test_an_idle_worker_that_is_killed_is_noticed_and_restarted() -> None:
    async def scenario(handles, runtime):
        maker = handles["maker"]
        resynced = asyncio.Event()

        async def resync(name: str) -> None:
            resynced.set()

        supervisor = asyncio.create_task(runtime.supervise(resync))
        process = await maker.slow.remote(0)
        await asyncio.sleep(0.1)
        os.kill(process, signal.SIGKILL)
        await asyncio.wait_for(resynced.wait(), 30)
        again = await maker.slow.remote(0)
        supervisor.cancel()
        return process != again

    assert run(scenario, host(restartable=True))


def test_a_crash_loop_ends_naming_the_worker() -> None:
    async def scenario(handles, runtime):
        supervisor = asyncio.create_task(runtime.supervise(resync_nothing))
        pool = Pool(Staff(list(handles.values())))
        with pytest.raises(WorkerDiedError, match="rollout-0 died: 1 restarts were not enough"):
            await pool.run("die")
        with pytest.raises(WorkerDiedError, match="rollout-0"):
            await supervisor

    run(scenario, host("rollout-0", restartable=True))


def test_a_worker_that_is_renewed_is_a_new_process_and_one_restart_less() -> None:
    async def scenario(handles, runtime):
        maker = handles["maker"]
        supervisor = asyncio.create_task(runtime.supervise(resync_nothing))
        process = await maker.slow.remote(0)
        renewed = [await maker.renewed("it hangs"), await maker.renewed("it hangs again")]
        again = await maker.slow.remote(0)
        supervisor.cancel()
        return process != again, renewed, runtime.processes()["maker"]["restarts"]

    assert run(scenario, host(restartable=True)) == (True, [True, False], 1)


def test_a_process_answers_amid_its_work() -> None:
    async def scenario(handles, runtime):
        began = time.time()
        work = handles["maker"].slow.remote(2)
        supervisor = asyncio.create_task(runtime.supervise(resync_nothing))
        while runtime.processes()["maker"]["heard_at"] is None:
            await asyncio.sleep(0.05)
        said = runtime.processes()["maker"]
        await work
        ended = time.time()
        supervisor.cancel()
        return began <= said["heard_at"] < ended - 0.5, said["gpus"]

    assert run(scenario, host()) == (True, [])


def test_a_hired_worker_that_cannot_be_made_or_kept_is_none() -> None:
    broken = Recipe("tests.integration.cluster_workers:Unbuildable")
    standby = HostSpec("broken", {"broken": broken}, num_cpus=0.1, hired=True, standby=True)

    async def scenario(handles, runtime):
        office = Office()
        with pytest.raises(HireFailedError, match=r"broken cannot be hired: ValueError: .*nowhere"):
            await runtime.hire("broken", office)
        hired = asyncio.create_task(runtime.hire("dying", office))
        dying = await office.welcomed.get()
        with pytest.raises(WorkerDiedError):
            await dying.die.remote()
        with pytest.raises(HireFailedError, match="0 restarts were not enough"):
            await hired
        with pytest.raises(WorkerDiedError, match="dying"):
            await dying.revived()
        return list(runtime.processes()), office.missed

    dying = host("dying", hired=True, standby=True, restartable=True)
    assert run(scenario, host(), standby, dying, max_restarts=0) == (["maker"], ["dying"])


def test_a_hired_worker_that_was_there_from_the_start_can_be_ended_and_hired_again() -> None:
    async def scenario(handles, runtime):
        office, extra = Office(), handles["extra"]
        supervisor = asyncio.create_task(runtime.supervise(resync_nothing))
        kept = asyncio.create_task(runtime.hire("extra", office))
        process = await extra.slow.remote(0)
        amid = extra.slow.remote(60)
        kept.cancel()
        with pytest.raises(WorkerDiedError, match="extra"):
            await amid
        with pytest.raises(WorkerDiedError, match="not needed any more"):
            await extra.revived()
        gone = list(runtime.processes())
        again = asyncio.create_task(runtime.hire("extra", office))
        renewed = await (await office.welcomed.get()).slow.remote(0)
        again.cancel()
        assert not supervisor.done()
        supervisor.cancel()
        return gone, process != renewed, office.missed

    extra = host("extra", hired=True, restartable=True)
    assert run(scenario, host(), extra) == (["maker"], True, [])


class Office:
    """Hires workers, and remembers whom it missed."""

    def __init__(self) -> None:
        self.welcomed: asyncio.Queue[Handle] = asyncio.Queue()
        self.missed: list[str] = []

    async def welcome(self, handle: Handle) -> None:
        """As `Employer.welcome`."""
        self.welcomed.put_nowait(handle)

    def miss(self, name: str) -> None:
        """As `Employer.miss`."""
        self.missed.append(name)


def test_a_dead_learner_ends_the_run_naming_it() -> None:
    async def scenario(handles, runtime):
        learner = handles["generator"]

        supervisor = asyncio.create_task(runtime.supervise(resync_nothing))
        with pytest.raises(WorkerDiedError, match="worker generator died"):
            await learner.die.remote()
        with pytest.raises(WorkerDiedError, match="worker generator died"):
            await supervisor

    run(scenario, host("generator"))


def test_more_cpus_than_the_cluster_has_are_shared_instead_of_waited_for() -> None:
    async def scenario(handles, runtime):
        return [await handle.load.remote(1) for handle in handles.values()]

    assert run(scenario, *(host(f"w{index}", num_cpus=3) for index in range(3))) == [1, 1, 1]


def test_garbage_that_knows_of_ray_does_not_end_the_process_with_it() -> None:
    command = [sys.executable, "-m", "tests.integration.leaving_ray"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
