"""The pool on threads: batches, answers piece by piece, what is let go, faults, growth."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from services.runtime.batch_pool import BatchPool
from services.runtime.batches import BatchQueue, Lost
from services.runtime.handles import HostSpec, Recipe
from services.runtime.local import LocalHandle, LocalRuntime
from services.runtime.scaling import ScaleBounds
from services.runtime.staff import Staff
from services.runtime.waiting import Patience
from tests.pool_cases import Hiring, broken, go, served

pytestmark = pytest.mark.unit

DOUBLER = Recipe("tests.pool_cases:Doubler")


def doubler(host: str) -> Recipe:
    return Recipe("tests.pool_cases:Doubler", (host,))


class Excusing(LocalHandle):
    """Counts the deaths that were excused."""

    excused = 0

    def excuse(self) -> None:
        """One more."""
        self.excused += 1


def run(scenario, workers: int = 1, **queue: Any):
    """Run `scenario(pool, runtime)` beside the pool's own loop."""
    go.set()

    async def main():
        runtime = LocalRuntime(Patience())
        started: dict[str, Any] = await runtime.start(
            [HostSpec(f"w{i}", {f"w{i}": doubler(f"w{i}")}) for i in range(workers)]
        )
        handles: dict[str, Any] = {
            name: Excusing(name, each.thread, each.patience) for name, each in started.items()
        }
        sizes: dict[str, Any] = {"size": 4, "wait_s": 0.0, "capacity": 100} | queue
        pool = BatchPool(Staff(list(handles.values())), BatchQueue(**sizes))
        async with served(pool, runtime):
            return await asyncio.wait_for(scenario(pool, handles), 20)

    return asyncio.run(main())


async def told(value: int):
    """A reference to a value."""
    return value


def piece(value: int) -> Any:
    return asyncio.ensure_future(told(value))


async def values(answers) -> list[int]:
    return [await answer for answer in answers]


def test_pieces_that_wait_for_a_busy_worker_share_its_next_batch_and_answer_one_by_one():
    async def scenario(pool, handles):
        go.clear()
        judging = [asyncio.create_task(pool.judge(piece(n), 1)) for n in range(7)]
        while pool.depth != 3:
            await asyncio.sleep(0.001)
        go.set()
        answers = await values(await asyncio.gather(*judging))
        return answers, await handles["w0"].seen.remote(), pool.costs.drain()

    answers, batches, costs = run(scenario, size=4)
    assert answers == [0, 2, 4, 6, 8, 10, 12]
    assert batches == [[6, 5, 4, 3], [2, 1, 0]]
    assert costs["images"] == 7


def test_a_full_batch_does_not_wait_for_the_clock():
    async def scenario(pool, handles):
        judging = [pool.judge(piece(n), 2) for n in range(2)]
        return await values(await asyncio.gather(*judging))

    assert run(scenario, size=4, wait_s=1000.0) == [0, 2]


def test_a_batch_with_room_goes_when_its_wait_is_over():
    async def scenario(pool, handles):
        (answer,) = await asyncio.gather(pool.judge(piece(3), 1))
        return await answer, pool.costs.drain()["wait_p50_s"]

    answer, waited = run(scenario, size=4, wait_s=0.05)
    assert answer == 6
    assert waited >= 0.05


def test_what_is_judged_together_is_batched_the_same_whatever_else_comes():
    async def scenario(pool, handles):
        go.clear()
        loose = [asyncio.create_task(pool.judge(piece(n), 1)) for n in (90, 91)]
        together = asyncio.create_task(pool.judge_together([piece(n) for n in range(5)], 2))
        await asyncio.sleep(0.02)
        go.set()
        answers = await values(await together)
        await asyncio.gather(*loose)
        return answers, await handles["w0"].seen.remote()

    answers, batches = run(scenario)
    assert answers == [0, 2, 4, 6, 8]
    assert [batch for batch in batches if max(batch) < 90] == [[0, 1], [2, 3], [4]]


def test_a_piece_that_nobody_wants_any_more_is_let_go_and_counted():
    async def scenario(pool, handles):
        gone = await pool.judge(piece(1), 3, lambda: False)
        answer = await pool.judge(piece(2), 3)
        return gone, await answer, pool.costs.drain()["expired/too_old"]

    gone, answer, count = run(scenario)
    assert (gone.state, gone.kind, answer, count) == ("expired", "too_old", 4, 3)


def test_the_oldest_of_too_many_is_let_go_and_counted():
    async def scenario(pool, handles):
        go.clear()
        first = asyncio.create_task(pool.judge(piece(0), 4))
        while pool.depth or pool.staff.free:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(pool.judge(piece(n), 4)) for n in (1, 2, 3)]
        await asyncio.sleep(0.01)
        go.set()
        answers = await asyncio.gather(first, *others)
        (lost,) = (answer for answer in answers if isinstance(answer, Lost))
        kept = await values(answer for answer in answers if answer is not lost)
        return kept, lost, pool.costs.drain()

    kept, lost, costs = run(scenario, capacity=2)
    assert (kept, lost.kind) == ([0, 4, 6], "overflow")
    assert costs["expired/overflow"] == 4


def test_what_no_worker_is_free_for_is_let_go_while_it_is_waited_for():
    async def scenario(pool, handles):
        go.clear()
        first = asyncio.create_task(pool.judge(piece(1), 4))
        while pool.staff.free:
            await asyncio.sleep(0.001)
        lost = await pool.judge(piece(2), 4)
        go.set()
        return await values([await first]), lost, pool.costs.drain()["expired/queue"]

    answers, lost, count = run(scenario, deadline_s=0.05)
    assert (answers, lost.state, count) == ([2], "expired", 4)


def test_every_worker_is_used():
    async def scenario(pool, handles):
        go.clear()
        judging = [asyncio.create_task(pool.judge(piece(n), 4)) for n in range(2)]
        while pool.staff.free:
            await asyncio.sleep(0.001)
        go.set()
        await asyncio.gather(*judging)
        return [await handle.seen.remote() for handle in handles.values()]

    assert run(scenario, workers=2) == [[[1]], [[0]]]


def test_a_piece_that_workers_die_of_is_lost_and_the_others_of_its_batch_are_done(caplog):
    async def scenario(pool, handles):
        answers = await pool.judge_together([piece(n) for n in (1, 66, 2)], 1)
        kept = await values([answers[0], answers[2]])
        return kept, answers[1], await handles["w0"].seen.remote(), pool.costs.drain()

    kept, lost, batches, costs = run(scenario)
    assert kept == [2, 4]
    assert batches == [[1, 66, 2], [1, 66, 2], [1], [66], [2]]
    assert (lost.state, lost.reason) == ("failed", "3 workers died of it: worker w0 died: SIGSEGV")
    assert (costs["failed/killed"], costs["reissued"]) == (1, 6)
    assert lost.reason in caplog.text


def test_a_piece_that_is_a_batch_by_itself_is_tried_twice():
    async def scenario(pool, handles):
        (lost,) = await pool.judge_together([piece(66)], 4)
        return lost, await handles["w0"].seen.remote()

    lost, batches = run(scenario)
    assert (lost.kind, batches) == ("killed", [[66], [66]])


def test_deaths_of_a_lost_piece_are_excused_once_its_worker_has_done_another():
    async def scenario(pool, handles):
        counts = []
        for pieces in ((66,), (66,), (1,), (66, 66), (2,)):
            await pool.judge_together([piece(n) for n in pieces], 2)
            counts.append(handles["w0"].excused)
        return counts

    assert run(scenario) == [1, 2, 4, 6, 8]


def test_a_death_of_what_is_done_at_last_is_not_excused():
    async def scenario(pool, handles):
        (answer,) = await pool.judge_together([piece(55)], 4)
        return await answer, handles["w0"].excused

    assert run(scenario) == (110, 0)


def test_an_unfit_worker_rests_and_the_others_do_its_work(caplog):
    async def scenario(pool, handles):
        answers = [await (await pool.judge(piece(n), 4)) for n in (99, 1, 2, 3)]
        return answers, [await handle.seen.remote() for handle in handles.values()]

    answers, batches = run(scenario, workers=2)
    assert answers == [198, 2, 4, 6]
    assert batches == [[[99]], [[1], [2], [3]]]
    assert "w0 gets nothing to do for 5 s, since it judged 99" in caplog.text


@pytest.fixture
def breaking() -> Iterator[set[str]]:
    """Hosts whose every call raises, in this test."""
    yield broken
    broken.clear()


def test_a_worker_that_fails_where_another_does_not_rests_and_its_batches_are_done(
    breaking, caplog
):
    async def scenario(pool, handles):
        breaking.add("w0")
        answers = [await (await pool.judge(piece(n), 4)) for n in range(5)]
        resting = dict(pool.staff.resting)
        return answers, [await handle.seen.remote() for handle in handles.values()], resting, pool

    answers, batches, resting, pool = run(scenario, workers=2)
    assert answers == [0, 2, 4, 6, 8]
    assert batches == [[[0]], [[0], [1], [2], [3], [4]]]
    assert resting == {"w0": "another worker could do what it failed at: OSError: no GPU"}
    assert "w0 gets nothing to do for 5 s, since another worker could do" in caplog.text
    costs = pool.costs.drain()
    assert (costs["handed_over"], costs["images"], costs["failed"]) == (1, 5, 0)


def test_where_every_worker_fails_the_records_say_so_and_nothing_is_tried_twice_for_ever(breaking):
    async def scenario(pool, handles):
        breaking.update(handles)
        answers = [await (await pool.judge(piece(n), 4)) for n in range(6)]
        return answers, [await handle.seen.remote() for handle in handles.values()], pool

    answers, batches, pool = run(scenario, workers=2)
    assert answers == [-1] * 6
    assert sum(map(len, batches)) == 7
    assert pool.staff.resting == {}
    assert pool.costs.drain()["failed/OSError"] == 6


def test_a_batch_that_every_worker_fails_at_makes_none_of_them_unfit():
    async def scenario(pool, handles):
        answers = [await (await pool.judge(piece(n), 4)) for n in (44, 1, 44, 2)]
        while len(pool.staff.free) < 2:
            await asyncio.sleep(0.001)
        return answers, pool.costs.drain()["handed_over"]

    assert run(scenario, workers=2) == ([-1, 2, -1, 4], 2)


def test_a_worker_that_fails_alone_answers_with_its_fault(breaking):
    async def scenario(pool, handles):
        breaking.add("w0")
        return await (await pool.judge(piece(1), 4)), pool.costs.drain()

    answer, costs = run(scenario)
    assert (answer, costs["failed/OSError"], "handed_over" in costs) == (-1, 1, False)


def test_what_a_worker_raises_ends_the_pool_s_loop_with_it():
    async def main():
        go.set()
        runtime = LocalRuntime(Patience())
        handles = await runtime.start([HostSpec("w0", {"w0": DOUBLER})])
        staff = Staff(list(handles.values()))
        pool = BatchPool(staff, BatchQueue(4, 0.0, 9))
        asking = asyncio.create_task(pool.judge(piece(13), 1))
        try:
            await asyncio.wait_for(pool.serve(), 20)
        finally:
            asking.cancel()
            await runtime.close()

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [str(fault) for fault in caught.value.exceptions] == ["thirteen"]


def run_hiring(scenario, faults: int = 0):
    """Run `scenario(pool, hiring, until)` of one worker and two that may be hired.

    `until(condition)` lets half a second of the pool's clock pass at a time; the clock is answered.
    """

    async def main():
        go.clear()
        runtime, now = LocalRuntime(Patience()), [0.0]
        hiring = Hiring(runtime, DOUBLER, faults)
        handles = await runtime.start([HostSpec("w0", {"w0": DOUBLER})])
        bounds = ScaleBounds(1, 3, up_after_s=2.0, down_after_s=5.0)

        def clock() -> float:
            return now[0]

        staff = Staff(list(handles.values()), bounds, ["w1", "w2"], hiring.hire, clock)
        pool = BatchPool(staff, BatchQueue(1, 0.0, 99), clock=clock)

        async def until(condition: Callable[[], bool]) -> float:
            async with asyncio.timeout(20):
                while not condition():
                    now[0] += 0.5
                    staff.news.tell()
                    await asyncio.sleep(0.001)
            return now[0]

        async with served(pool, runtime):
            return await asyncio.wait_for(scenario(pool, hiring, until), 20)

    return asyncio.run(main())


def test_a_crowded_pool_grows_to_its_bound_and_shrinks_again_when_it_idles():
    async def scenario(pool, hiring, until):
        judging = [asyncio.create_task(pool.judge(piece(n), 1)) for n in range(12)]
        await until(lambda: pool.staff.num_workers == 3)
        go.set()
        answers = await values(await asyncio.gather(*judging))
        await until(lambda: pool.staff.num_workers == 1)
        await asyncio.sleep(0.01)
        return answers, await values([await pool.judge(piece(40), 1)]), hiring.log

    answers, again, log = run_hiring(scenario)
    assert (answers, again) == ([2 * n for n in range(12)], [80])
    assert log == ["+w1", "+w2", "-w2", "-w1"]


def test_a_pool_that_is_held_has_that_many_workers_whatever_waits():
    async def scenario(pool, hiring, until):
        staff = pool.staff
        for workers in (0, 4):
            with pytest.raises(ValueError, match=f"{workers} workers: allowed 1 to 3"):
                staff.hold(workers)
        staff.hold(3)
        await until(lambda: staff.num_workers == 3)
        began = await until(lambda: True)
        await until(lambda: staff._clock() > began + 30)  # far past down_after_s
        idle = staff.sizes()
        judging = [asyncio.create_task(pool.judge(piece(n), 1)) for n in range(12)]
        staff.hold(1)
        await until(lambda: len(staff.free) == 0)
        go.set()
        await asyncio.gather(*judging)
        await until(lambda: staff.num_workers == 1)
        staff.hold(None)
        return idle, staff.sizes()

    idle, free = run_hiring(scenario)
    bounds = {"fewest": 1, "most": 3, "automatic": True}
    assert idle == {"workers": 3, "held": 3, **bounds}
    assert free == {"workers": 1, "held": None, **bounds}


def test_workers_that_are_too_many_go_as_soon_as_they_are_done_however_much_waits():
    async def scenario(pool, hiring, until):
        pool.staff.hold(3)
        await until(lambda: pool.staff.num_workers == 3)
        judging = [asyncio.create_task(pool.judge(piece(n), 1)) for n in range(12)]
        await until(lambda: not pool.staff.free)
        pool.staff.hold(1)
        go.set()
        answers = await values(await asyncio.gather(*judging))
        batches = [await hiring.handles[name].seen.remote() for name in ("w1", "w2")]
        return answers, [len(each) for each in batches], hiring.log

    answers, counts, log = run_hiring(scenario)
    assert answers == [2 * n for n in range(12)]
    assert counts == [1, 1]
    assert sorted(log) == ["+w1", "+w2", "-w1", "-w2"]


def test_a_worker_that_cannot_be_hired_is_done_without_and_tried_again_later(caplog):
    async def scenario(pool, hiring, until):
        judging = [asyncio.create_task(pool.judge(piece(n), 1)) for n in range(12)]
        failed = [await until(lambda n=n: hiring.faults == n) for n in (2, 1, 0)]
        alone = pool.staff.num_workers
        hired = await until(lambda: pool.staff.num_workers == 2)
        go.set()
        await asyncio.gather(*judging)
        return [*failed, hired], alone

    with caplog.at_level("INFO"):
        times, alone = run_hiring(scenario, faults=3)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert alone == 1
    assert [pause >= least for pause, least in zip(pauses, (10, 20, 40), strict=True)] == [True] * 3
    failures = [record for record in caplog.records if "cannot be hired" in record.message]
    assert [record.levelname for record in failures] == ["WARNING", "INFO", "INFO"]
    assert "w1 cannot be hired: ModuleNotFoundError: No module named 'cv2'" in failures[0].message
