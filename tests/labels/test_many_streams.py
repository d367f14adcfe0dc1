"""200 listeners of a real server: each hears every event once and in order, whoever else is cut off
or does not read."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from benchmarks.label_events import Stream
from services.labels.event_bus import BUFFER
from services.labels.events import record_events
from services.labels.settings import NO_RATES, Settings
from services.labels.store.database import Database
from services.labels.store.tables import Event
from tests.labels.rows import NOON

pytestmark = pytest.mark.integration

CLIENTS, CUT = 200, 20
WRITERS, EACH = 4, 40
"""Transactions at a time, and events in each."""
LARGE = {"text": "x" * 16_000}
"""Soon fills the sockets between a server and a client who does not read."""
PATIENCE_S = 30

Heard = list[tuple[int, list[int]]]
"""Events: number and content."""
Open = Callable[..., Awaitable[Stream]]
Listening = Callable[[], AbstractAsyncContextManager[Open]]


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        rates=NO_RATES,
        max_streams=CLIENTS + 1,
    )


@pytest.fixture
def listening(live_server: str, keys: dict[str, str]) -> Listening:
    """Opens streams, which end with the context."""
    port = int(live_server.rpartition(":")[2])

    @asynccontextmanager
    async def context() -> AsyncIterator[Open]:
        streams: list[Stream] = []

        async def connect(**options: Any) -> Stream:
            streams.append(await Stream.open(port, keys["viewer"], **options))
            return streams[-1]

        try:
            yield connect
        finally:
            for stream in streams:
                stream.cut()

    return context


async def burst(
    database: Database, topic: str = "labels", num_each: int = EACH, **data: str
) -> None:
    """Transactions that commit in whatever order."""

    def write(number: int) -> list[int]:
        events = [("it.happened", {"n": [number, n], **data}) for n in range(num_each)]
        return database.write_now(lambda session: record_events(session, topic, events, NOON))

    await asyncio.gather(*(asyncio.to_thread(write, number) for number in range(WRITERS)))


async def hear(stream: Stream, number: int) -> Heard:
    """The next events: id and content."""
    heard = []
    async with asyncio.timeout(PATIENCE_S):
        async for block in stream:
            assert block.kind is None
            if block.data is not None:
                heard.append((block.id, block.data["data"]["n"]))
            if len(heard) == number:
                return heard
    raise AssertionError(f"the stream ended after {heard}")


def written(database: Database, topic: str = "labels") -> Heard:
    query = select(Event).where(Event.topic == topic).order_by(Event.seq)
    return [(e.seq, e.data["n"]) for e in database.read_now(lambda s: s.scalars(query).all())]


def test_each_of_200_clients_hears_a_burst_once_and_in_order_though_some_are_cut(
    listening: Listening, database: Database
) -> None:
    draw = random.Random(0)

    async def come_back(stream: Stream, connect: Open) -> Heard:
        heard = await hear(stream, draw.randrange(1, WRITERS * EACH))
        stream.cut()
        await asyncio.sleep(draw.uniform(0, 0.2))
        again = await connect(last_id=heard[-1][0])
        return heard + await hear(again, WRITERS * EACH - len(heard))

    async def scenario() -> list[Heard]:
        async with listening() as connect:
            streams = [await connect() for _ in range(CLIENTS)]
            cut = [come_back(stream, connect) for stream in streams[:CUT]]
            others = [hear(stream, WRITERS * EACH) for stream in streams[CUT:]]
            return (await asyncio.gather(burst(database), *cut, *others))[1:]

    everybodys = asyncio.run(scenario())
    truth = written(database)
    assert len(truth) == WRITERS * EACH
    assert len(everybodys) == CLIENTS
    assert [heard for heard in everybodys if heard != truth] == []


def test_a_client_that_does_not_read_holds_nobody_up_and_starts_over(
    listening: Listening, database: Database
) -> None:
    async def scenario() -> tuple[list[Heard], list[str | None]]:
        async with listening() as connect:
            # Linux lets a receiving socket grow to 32 MB, and a sending one to 4 MB.
            idle = await connect(topics="labels,system", receive_bytes=64 * 1024)
            others = [await connect() for _ in range(20)]
            # What nobody else wants: 32 MB, more than sockets and a buffer of 16 behind them hold.
            for _ in range(2):
                await burst(database, "system", BUFFER // WRITERS, **LARGE)
            await burst(database)
            heard = await asyncio.gather(*(hear(other, WRITERS * EACH) for other in others))
            kinds: list[str | None] = []
            async with asyncio.timeout(PATIENCE_S):
                async for block in idle:
                    kinds.append(block.kind)
                    if block.kind == "reset":
                        break
            return heard, kinds

    everybodys, kinds = asyncio.run(scenario())
    truth = written(database)
    assert [heard for heard in everybodys if heard != truth] == []
    assert kinds[-1] == "reset"
