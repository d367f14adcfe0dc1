"""Events: one order for everybody, no gap and no repeat, however commits interleave."""

import asyncio
import contextlib
import json
import random
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, delete
from sqlalchemy.orm import Session

from services.labels.event_bus import EventBus, Settling, Wants
from services.labels.event_stream import stream
from services.labels.events import Horizon, audiences, look, record_event
from services.labels.store.tables import Event
from tests.labels.rows import NOON

pytestmark = pytest.mark.integration
EVERYTHING = Wants(None, None)


async def allowed():
    return True


def happen(database, number=0, topic="labels", audience="viewer"):
    return database.write_now(
        lambda s: record_event(s, topic, "it.happened", {"n": number}, NOON, audience)
    )


class _Reader:
    """An SSE client: reads blocks, remembers the last id."""

    def __init__(self, bus, wants=EVERYTHING, last_id=None, heartbeat_s=5.0):
        self.blocks = stream(bus, wants, last_id, allowed, heartbeat_s)
        self.last_id = last_id
        self.resets = 0
        self.heard = []

    async def read(self, num, patience_s=10.0):
        """The next `num` events, and what came with them."""
        known = len(self.heard)
        async with asyncio.timeout(patience_s):
            while len(self.heard) < known + num:
                self.heard += self._parse(await anext(self.blocks))
        return self.heard[known:]

    def _parse(self, text):
        events = []
        for block in text.strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
            self.last_id = int(fields.get("id", self.last_id or 0))
            if fields.get("event") == "reset":
                self.resets += 1
            elif "data" in fields:
                events.append(json.loads(fields["data"]))
        return events

    async def close(self):
        await self.blocks.aclose()


def run(scenario):
    return asyncio.run(scenario)


def test_a_stream_without_an_id_begins_now(database):
    happen(database, 1)

    async def scenario():
        reader = _Reader(EventBus(database, poll_s=0.01))
        opening = await anext(reader.blocks)
        happen(database, 2)
        (event,) = await reader.read(1)
        await reader.close()
        return opening, event

    opening, event = run(scenario())
    assert opening.startswith(":")
    assert event["data"] == {"n": 2}
    assert (event["topic"], event["type"], event["at"]) == (
        "labels",
        "it.happened",
        NOON.isoformat(),
    )


def test_a_client_that_comes_back_with_its_last_id_hears_what_it_missed_and_no_more(database):
    seqs = [happen(database, n) for n in range(5)]

    async def scenario():
        reader = _Reader(EventBus(database, poll_s=0.01), last_id=seqs[1])
        missed = await reader.read(3)
        happen(database, 5)
        news = await reader.read(1)
        await reader.close()
        return missed + news

    assert [event["data"]["n"] for event in run(scenario())] == [2, 3, 4, 5]


def test_an_id_that_is_too_old_or_of_another_database_is_a_reset(database):
    seqs = [happen(database, n) for n in range(5)]
    database.write_now(lambda s: s.execute(delete(Event).where(Event.seq <= seqs[2])))

    async def scenario(last_id):
        reader = _Reader(EventBus(database, poll_s=0.01), last_id=last_id)
        block = await anext(reader.blocks)
        happen(database, 9)
        news = await reader.read(1)
        await reader.close()
        return block, news[0]["data"]["n"]

    for last_id in (seqs[1], seqs[4] + 1000):
        block, news = run(scenario(last_id))
        assert "event: reset\n" in block
        assert news == 9


def test_the_oldest_id_that_can_be_resumed_is_the_one_before_the_first_kept(database):
    seqs = [happen(database, n) for n in range(5)]
    database.write_now(lambda s: s.execute(delete(Event).where(Event.seq <= seqs[2])))

    async def scenario():
        reader = _Reader(EventBus(database, poll_s=0.01), last_id=seqs[2])
        events = await reader.read(2)
        await reader.close()
        return [event["data"]["n"] for event in events], reader.resets

    assert run(scenario()) == ([3, 4], 0)


def test_a_slow_client_has_a_bounded_buffer_and_is_told_to_start_over(database):
    async def scenario():
        bus = EventBus(database, poll_s=0.01, buffer=10)
        reader = _Reader(bus)
        await anext(reader.blocks)
        for n in range(30):
            happen(database, n)
        while bus.position < 30:
            await asyncio.sleep(0.01)
        happen(database, 99)
        events = await reader.read(1)
        await reader.close()
        return events, reader.resets

    events, resets = run(scenario())
    assert resets == 1
    assert events[-1]["data"]["n"] == 99


def test_a_quiet_stream_has_a_pulse_that_moves_the_id_past_what_it_does_not_want(database):
    async def scenario():
        bus = EventBus(database, poll_s=0.01)
        reader = _Reader(bus, Wants(frozenset({"system"}), None), heartbeat_s=0.2)
        await anext(reader.blocks)
        seq = happen(database, topic="labels")
        async with asyncio.timeout(5):
            while (reader.last_id or 0) < seq:
                block = await anext(reader.blocks)
                reader._parse(block)
        await reader.close()
        return block

    assert run(scenario()).startswith(": heartbeat\n")


def test_a_stream_ends_when_its_key_is_no_longer_valid(database):
    async def revoked():
        return False

    async def scenario():
        blocks = stream(EventBus(database, poll_s=0.01), EVERYTHING, None, revoked, 0.05)
        return [block async for block in blocks]

    assert len(run(scenario())) == 1


def test_topics_and_audiences_decide_who_hears_what(database):
    for audience in ("everybody", "viewer", "admin", "annotator:ann", "annotator:bob"):
        happen(database, audience, audience=audience)
    happen(database, "other topic", topic="system", audience="everybody")

    async def scenario(role, annotator_id, num):
        wants = Wants(frozenset({"labels"}), audiences(role, annotator_id))
        reader = _Reader(EventBus(database, poll_s=0.01), wants, last_id=0)
        events = await reader.read(num)
        await reader.close()
        return [event["data"]["n"] for event in events]

    assert run(scenario("annotator", "ann", 2)) == ["everybody", "annotator:ann"]
    assert run(scenario("viewer", None, 2)) == ["everybody", "viewer"]
    assert run(scenario("service", None, 2)) == ["everybody", "viewer"]
    assert len(run(scenario("admin", None, 5))) == 5


def test_the_bus_reads_for_all_and_only_while_somebody_listens(database):
    async def scenario():
        bus = EventBus(database, poll_s=0.01)
        readers = [_Reader(bus) for _ in range(200)]
        for reader in readers:
            await anext(reader.blocks)
        happen(database, 7)
        heard = [await reader.read(1) for reader in readers]
        listeners = bus.num_listeners
        for reader in readers:
            await reader.close()
        return heard, listeners, bus.num_listeners, bus._polling

    heard, during, after, polling = run(scenario())
    assert all(events[0]["data"] == {"n": 7} for events in heard)
    assert (during, after, polling) == (200, 0, None)


def test_a_number_is_passed_only_when_every_transaction_that_wrote_then_has_ended():
    settling = Settling()
    assert settling.update(Horizon(7, frozenset({"a", "b"}))) == -1
    assert settling.update(Horizon(9, frozenset({"b", "c"}))) == -1
    assert settling.update(Horizon(9, frozenset({"c"}))) == 7
    assert settling.update(Horizon(9, frozenset())) == 9


def test_on_postgresql_a_late_commit_of_a_lower_number_is_not_lost(database, database_url):
    if not database_url.startswith("postgresql"):
        pytest.skip("SQLite has one writer, whose numbers are in the order of commits")
    engine = create_engine(database_url)

    async def scenario():
        bus = EventBus(database, poll_s=0.01)
        reader = _Reader(bus)
        await anext(reader.blocks)
        with Session(engine) as late:
            low = record_event(late, "labels", "low", {"n": "low"}, NOON)
            high = await asyncio.to_thread(happen, database, "high")
            await asyncio.sleep(0.3)
            held_back = bus.position < low < high
            late.commit()
        events = await reader.read(2)
        await reader.close()
        return held_back, [event["data"]["n"] for event in events]

    assert run(scenario()) == (True, ["low", "high"])
    engine.dispose()


def test_resuming_readers_see_every_event_once_while_writers_commit_at_random(
    database, database_url
):
    """Four connections write behind the service's back and dawdle before they commit."""
    patience = {"timeout": 20} if database_url.startswith("sqlite") else {}
    engine = create_engine(database_url, connect_args=patience)
    num_writers, num_each = 4, 15

    def write(seed):
        rng = random.Random(seed)
        for n in range(num_each):
            with Session(engine) as session:
                record_event(session, "labels", "it.happened", {"n": [seed, n]}, NOON)
                session.flush()
                time.sleep(rng.uniform(0, 0.02))
                session.rollback() if rng.random() < 0.2 else session.commit()

    async def read(seed):
        rng, bus = random.Random(seed), EventBus(database, poll_s=0.005)
        heard, last_id = [], 0
        while threads_alive() or last_id < await newest():
            reader = _Reader(bus, last_id=last_id, heartbeat_s=0.05)
            with contextlib.suppress(TimeoutError):
                await reader.read(rng.randint(1, 7), 0.5)
            heard += [event["seq"] for event in reader.heard]
            assert reader.resets == 0
            last_id = reader.last_id
            await reader.close()
        return heard

    async def newest():
        return (await database.read(look)).newest

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(num_writers)]
    threads_alive = lambda: any(thread.is_alive() for thread in threads)  # noqa: E731

    async def scenario():
        happen(database)
        for thread in threads:
            thread.start()
        return await asyncio.gather(read(1), read(2))

    readings = run(scenario())
    with Session(engine) as session:
        truth = sorted(session.scalars(Event.__table__.select().with_only_columns(Event.seq)))
    engine.dispose()
    for heard in readings:
        assert sorted(set(heard)) == sorted(heard) == truth


def test_events_carry_the_time_of_the_apps_clock(database):
    seq = database.write_now(
        lambda s: record_event(s, "labels", "t", {}, NOON + timedelta(hours=1))
    )
    assert database.read_now(lambda s: s.get(Event, seq)).at == NOON + timedelta(hours=1)


def test_who_is_no_longer_allowed_hears_no_more_however_busy_the_stream_is(database):
    async def scenario():
        bus = EventBus(database, poll_s=0.001)
        answers = iter([True, False])

        async def still_allowed():
            return next(answers)

        blocks = stream(bus, EVERYTHING, None, still_allowed, heartbeat_s=0.1)
        heard = 0
        async with asyncio.timeout(30):
            async for _ in blocks:
                heard += 1
                await asyncio.to_thread(happen, database, heard)
        return heard

    assert run(scenario()) > 2
