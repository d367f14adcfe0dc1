"""The local runtime keeps Ray's semantics: references, serial workers, tracebacks."""

import asyncio
import threading
import time
import traceback

import pytest

from services.runtime.handles import HostSpec, Recipe
from services.runtime.hosting import gpu_of
from services.runtime.local import LocalRuntime
from services.runtime.pool import Pool
from services.runtime.staff import Staff
from services.runtime.waiting import Patience

pytestmark = pytest.mark.unit


class Counter:
    """Counts its calls, and how many of them overlapped."""

    def __init__(self, start: int = 0, backbone: list[str] | None = None) -> None:
        self.value, self.inside, self.overlaps = start, 0, 0
        self.backbone = backbone

    def add(self, amount: int) -> int:
        """The new value."""
        self.inside += 1
        self.overlaps += self.inside > 1
        time.sleep(0.001)
        self.value += amount
        self.inside -= 1
        return self.value

    def pair(self) -> tuple[str, str]:
        """Two answers."""
        return "groups", "images"

    def fail(self) -> None:
        """Raises."""
        raise ValueError("num_groups=7 is odd")

    def wait(self, seconds: float) -> str:
        """Sleeps."""
        time.sleep(seconds)
        return threading.current_thread().name

    def shared(self) -> int:
        """Identity of the backbone."""
        return id(self.backbone)


def make_backbone() -> list[str]:
    """A stand-in for a network."""
    return ["weights"]


HERE = "tests.unit.test_local_runtime"


def spec(name: str = "counter", **more: object) -> HostSpec:
    """A host with one worker of its own name."""
    return HostSpec(name, {name: Recipe(f"{HERE}:Counter")}, **more)


def run(scenario, *hosts: HostSpec, patience: Patience | None = None) -> object:
    """Run `scenario(handles)` on a local runtime."""

    async def main() -> object:
        runtime = LocalRuntime(patience or Patience())
        handles = await runtime.start(hosts or (spec(),))
        try:
            return await scenario(handles)
        finally:
            await runtime.close()

    return asyncio.run(main())


def test_a_reference_may_be_awaited_twice() -> None:
    async def scenario(handles):
        reference = handles["counter"].add.remote(3)
        return await reference, await reference, await handles["counter"].add.remote(0)

    assert run(scenario) == (3, 3, 3)


def test_a_reference_is_an_argument_and_its_call_starts_at_once() -> None:
    async def scenario(handles):
        first = handles["counter"].add.remote(3)
        second = handles["counter"].add.remote(first)
        return await second

    assert run(scenario) == 6


def test_two_returns_are_two_references() -> None:
    async def scenario(handles):
        groups, images = handles["counter"].pair.remote(num_returns=2)
        await images.settled()
        return await groups, await images

    assert run(scenario) == ("groups", "images")


def test_a_worker_answers_one_call_at_a_time_in_order() -> None:
    async def scenario(handles):
        values = await asyncio.gather(*[handles["counter"].add.remote(1) for _ in range(20)])
        return values, handles["counter"].thread.host.workers["counter"].overlaps

    assert run(scenario) == (list(range(1, 21)), 0)


def test_what_a_worker_raises_keeps_its_traceback_also_through_another_worker() -> None:
    async def scenario(handles):
        return await handles["counter"].add.remote(handles["other"].fail.remote())

    with pytest.raises(ValueError, match="num_groups=7 is odd") as caught:
        run(scenario, spec(), spec("other"))
    assert "in fail" in "".join(traceback.format_exception(caught.value))


def test_giving_up_a_wait_does_not_take_the_value_from_others() -> None:
    async def scenario(handles):
        reference = handles["counter"].wait.remote(0.1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reference, 0.01)
        return await reference

    assert run(scenario) == "counter_0"


def test_workers_of_one_host_share_a_backbone_and_a_thread() -> None:
    both = HostSpec(
        "colocated",
        {name: Recipe(f"{HERE}:Counter") for name in ("generator", "surrogate")},
        backbone=Recipe(f"{HERE}:make_backbone"),
    )

    async def scenario(handles):
        identities = [await handles[name].shared.remote() for name in handles]
        threads = [await handles[name].wait.remote(0) for name in handles]
        return len(set(identities)), set(threads)

    assert run(scenario, both) == (1, {"colocated_0"})


def test_ranks_on_the_local_runtime_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ranks on the local runtime"):
        run(lambda handles: None, spec(ranks=2))


def test_a_long_wait_reports_itself_and_ends_at_its_deadline(caplog) -> None:
    patience = Patience(report_s=0.02, deadline_s=0.05)

    async def scenario(handles):
        await handles["counter"].wait.remote(0.2)

    with pytest.raises(TimeoutError, match=r"counter\.wait.*cluster\.deadline_s=0\.05"):
        run(scenario, patience=patience)
    assert "waiting for counter.wait since" in caplog.text


def test_the_status_shows_only_waits_that_are_long() -> None:
    patience = Patience(report_s=0.01)

    async def scenario(handles):
        waiting = asyncio.ensure_future(handles["counter"].wait.remote(0.05).settled())
        await asyncio.sleep(0.03)
        seen = patience.waiting()
        await waiting
        return seen, patience.waiting()

    seen, after = run(scenario, patience=patience)
    assert [wait["for"] for wait in seen] == ["counter.wait"]
    assert after == []


def test_a_pool_uses_every_worker_and_tells_them_all() -> None:
    async def scenario(handles):
        pool = Pool(Staff(list(handles.values())))
        answers = await asyncio.gather(*[pool.run("wait", 0.02) for _ in range(4)])
        threads = {await reference for reference, _ in answers}
        assert all(seconds >= 0.02 for _, seconds in answers)
        return threads, await pool.staff.tell("add", 5)

    names = ("left", "right")
    assert run(scenario, *map(spec, names)) == ({"left_0", "right_0"}, [5, 5])


class Card:
    """As much of torch.cuda as is asked for."""

    def __init__(self, is_initialized=True, busy=None):
        self.is_initialized = lambda: is_initialized
        self.busy = busy

    def mem_get_info(self):
        assert self.is_initialized(), "it would take memory"
        return 60, 80

    def get_device_name(self):
        return "card"

    def utilization(self):
        if self.busy is None:
            raise ModuleNotFoundError("pynvml module not found")
        return self.busy


def test_a_gpu_that_nobody_computes_on_is_none_and_what_is_not_known_is_no_zero():
    assert gpu_of(Card(is_initialized=False)) is None
    told = {"name": "card", "used_bytes": 20, "total_bytes": 80}
    assert gpu_of(Card()) == told | {"utilisation": None}
    assert gpu_of(Card(busy=37)) == told | {"utilisation": 0.37}
