"""Waiting for work: woken by new work, never by the clock's hands going round and round."""

import asyncio
import time

import pytest

from services.labels.bell import Bell

pytestmark = pytest.mark.unit


def test_a_ring_wakes_everybody_who_waits() -> None:
    async def scene() -> float:
        bell = Bell()
        started = time.monotonic()
        waiting = [asyncio.create_task(bell.wait(bell.heard, 20)) for _ in range(3)]
        await asyncio.sleep(0.01)
        bell.ring()
        await asyncio.gather(*waiting)
        return time.monotonic() - started

    assert asyncio.run(scene()) < 5


def test_a_ring_between_looking_and_waiting_is_not_missed() -> None:
    async def scene() -> None:
        bell = Bell()
        heard = bell.heard
        bell.ring()
        await asyncio.wait_for(bell.wait(heard, 20), 5)

    asyncio.run(scene())


def test_without_a_ring_the_wait_ends_by_itself_and_leaves_nobody_behind() -> None:
    async def scene() -> int:
        bell = Bell()
        await bell.wait(bell.heard, 0.01)
        return bell.num_waiting

    assert asyncio.run(scene()) == 0
