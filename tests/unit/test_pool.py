"""A pool whose workers come and go: all of them know what all were told, and no work is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from services.runtime.handles import HostSpec, Recipe
from services.runtime.local import LocalRuntime
from services.runtime.pool import Pool
from services.runtime.scaling import ScaleBounds
from services.runtime.staff import Staff
from services.runtime.waiting import Patience
from tests.pool_cases import Hiring, go, served

pytestmark = pytest.mark.unit

FOLLOWER = Recipe("tests.pool_cases:Follower")


def run(scenario, workers: int = 1) -> Any:
    """Run `scenario(pool, hiring, until)` beside the pool's loop, of 1 to 3 workers."""
    go.set()

    async def main() -> Any:
        runtime = LocalRuntime(Patience())
        names = ["w0", "w1", "w2"]
        hosts = [HostSpec(name, {name: FOLLOWER}) for name in names[:workers]]
        handles = await runtime.start(hosts)
        hiring = Hiring(runtime, FOLLOWER, **handles)
        staff = Staff(list(handles.values()), ScaleBounds(1, 3), names[workers:], hiring.hire)
        pool = Pool(staff)

        async def until(condition: Callable[[], bool]) -> None:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.001)

        async with served(pool, runtime):
            return await asyncio.wait_for(scenario(pool, hiring, until), 20)

    return asyncio.run(main())


async def works(pool: Pool, what: str, *deadly_to: str) -> int:
    """What a worker knew when it did this."""
    answer, _ = await pool.run("work", what, *deadly_to)
    return await answer


def test_who_is_hired_knows_the_newest_before_its_first_work():
    async def scenario(pool, hiring, until):
        await pool.staff.tell("load", 5)
        go.clear()
        pool.staff.hold(2)
        await until(lambda: pool.staff.num_workers == 2)  # it is being told 5
        free = [handle.name for handle in pool.staff.free]
        told = asyncio.create_task(pool.staff.tell("load", 6))
        working = [asyncio.create_task(works(pool, what)) for what in "ab"]
        await asyncio.sleep(0.01)
        go.set()
        await until(lambda: len(hiring.handles) == 2)
        versions = await asyncio.gather(*working)
        third = asyncio.create_task(works(pool, "c"))
        return free, await told, [*versions, await third]

    assert run(scenario) == (["w0"], [6, 6], [6, 6, 6])


def test_who_is_dismissed_amid_its_work_finishes_it_and_goes():
    async def scenario(pool, hiring, until):
        go.clear()
        working = [asyncio.create_task(works(pool, what)) for what in "abcdef"]
        await until(lambda: not pool.staff.free)
        pool.staff.hold(1)
        await asyncio.sleep(0.01)
        amid = list(hiring.log)
        go.set()
        await asyncio.gather(*working)
        done = {name: await handle.done.remote() for name, handle in hiring.handles.items()}
        return amid, sorted(hiring.log), done, pool.staff.sizes()

    amid, log, done, sizes = run(scenario, workers=3)
    assert (amid, log) == ([], ["-w1", "-w2"])
    assert [len(done[name]) for name in ("w1", "w2")] == [1, 1]
    assert sorted(what for each in done.values() for what in each) == list("abcdef")
    assert sizes == {"workers": 1, "fewest": 1, "most": 3, "held": 1, "automatic": False}


def test_what_a_hired_worker_dies_of_is_done_by_another_while_it_is_missed():
    async def scenario(pool, hiring, until):
        await pool.staff.tell("load", 5)
        go.clear()
        working = [asyncio.create_task(works(pool, what, "w1")) for what in ("a", "b")]
        await until(lambda: not pool.staff.free)
        go.set()
        # To w0 it is the death of somebody else, which it cannot help.
        faults = await asyncio.gather(*working, return_exceptions=True)
        missing = pool.staff.num_workers
        told = await asyncio.wait_for(pool.staff.tell("load", 6), 5)
        await pool.staff.welcome(hiring.handles["w1"])
        go.clear()
        working = [asyncio.create_task(works(pool, what)) for what in "cd"]
        await until(lambda: not pool.staff.free)  # both are at it
        go.set()
        return [str(fault) for fault in faults], missing, told, await asyncio.gather(*working)

    faults, missing, told, versions = run(scenario, workers=2)
    assert faults == ["worker w1 died: SIGSEGV"] * 2
    assert (missing, told, versions) == (1, [6], [6, 6])


def test_a_number_that_follows_no_queue_is_refused_auto():
    async def scenario(pool, hiring, until):
        for workers, said in ((None, "auto: .* allowed 1 to 3"), (4, "4 workers: allowed 1 to 3")):
            with pytest.raises(ValueError, match=said):
                pool.staff.hold(workers)
        await asyncio.sleep(0)
        return pool.staff.sizes()

    assert run(scenario, workers=2)["held"] == 2


def test_who_cannot_be_hired_keeps_no_work_waiting(caplog):
    async def scenario(pool, hiring, until):
        hiring.faults = 1
        pool.staff.hold(2)
        await until(lambda: hiring.faults == 0)
        return await works(pool, "a"), pool.staff.sizes()

    version, sizes = run(scenario)
    assert (version, sizes["workers"], sizes["held"]) == (0, 1, 2)
    assert "w1 cannot be hired" in caplog.text
    assert "goes on with the other 1 of its pool" in caplog.text
