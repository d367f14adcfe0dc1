"""The reward queue's promises, on both databases: hidden while out, back unless acked."""

import random
import threading
from collections import Counter
from datetime import timedelta

import pytest

from services.labels import reward_queue
from services.labels.store.tables import Group
from tests.labels.rows import NOON, add_message

pytestmark = pytest.mark.integration


def seconds(number):
    return NOON + timedelta(seconds=number)


@pytest.fixture
def queue(database):
    return _Queue(database)


class _Queue:
    """The domain functions, each in a transaction of its own."""

    def __init__(self, database):
        self.database = database

    def put(self, *group_ids, **options):
        for group_id in group_ids:
            self.database.write_now(lambda s, g=group_id: add_message(s, g, **options))

    def receive(self, at=0, num=64, run_id=None, visibility=60):
        return self.database.write_now(
            lambda s: reward_queue.receive(s, num, visibility, run_id, seconds(at)).messages
        )

    def __getattr__(self, name):
        def call(*arguments, at=0):
            function = getattr(reward_queue, name)
            return self.database.write_now(lambda s: function(s, *arguments, seconds(at)))

        return call


def test_a_received_message_is_hidden_until_its_time_is_out(queue):
    queue.put("g1")
    (first,) = queue.receive(at=0)
    assert queue.receive(at=59) == []
    (second,) = queue.receive(at=60)
    assert (first["receive_count"], second["receive_count"]) == (1, 2)
    assert first["receipt"] != second["receipt"]
    assert second["group_id"] == "g1"


def test_how_long_a_message_waited_is_told_the_first_time_only(database):
    database.write_now(lambda s: add_message(s, "g1"))

    def receive(at):
        return database.write_now(lambda s: reward_queue.receive(s, 64, 60, None, seconds(at)))

    assert receive(7).first_ages_s == [7.0]
    assert len((again := receive(67)).messages) == 1
    assert again.first_ages_s == []


def test_an_acked_message_never_comes_back_and_its_group_is_consumed(queue):
    queue.put("g1")
    (message,) = queue.receive()
    assert [r.status for r in queue.ack([message["receipt"]])] == [200]
    assert queue.receive(at=10_000) == []
    group = queue.database.read_now(lambda s: s.get(Group, "g1"))
    assert (group.state, group.consumed_at) == ("consumed", NOON)


def test_acking_twice_is_fine_and_a_stale_receipt_is_not(queue):
    queue.put("g1", "g2")
    old = {m["group_id"]: m["receipt"] for m in queue.receive(at=0)}
    new = {m["group_id"]: m["receipt"] for m in queue.receive(at=60)}
    results = queue.ack([old["g1"], new["g1"], new["g1"], "made up", new["g2"]])
    assert [r.status for r in results] == [409, 200, 200, 409, 200]


def test_a_receipt_whose_time_is_out_still_acks_while_nobody_else_has_the_message(queue):
    queue.put("g1")
    (message,) = queue.receive(at=0)
    assert [r.status for r in queue.ack([message["receipt"]], at=600)] == [200]


def test_a_nacked_message_comes_back_at_once(queue):
    queue.put("g1")
    (message,) = queue.receive(at=0)
    assert [r.status for r in queue.nack([message["receipt"]] * 2, "full", at=1)] == [200, 200]
    (again,) = queue.receive(at=1)
    assert [r.status for r in queue.nack([message["receipt"]], "full", at=2)] == [409]
    assert again["receive_count"] == 2


def test_an_extended_message_stays_hidden(queue):
    queue.put("g1")
    (message,) = queue.receive(at=0)
    assert [r.status for r in queue.extend([message["receipt"]], 100, at=50)] == [200]
    assert queue.receive(at=149) == []
    assert len(queue.receive(at=150)) == 1


def test_after_five_receives_it_is_a_dead_letter_with_a_reason_until_redriven(queue):
    queue.put("g1")
    for turn in range(5):
        (message,) = queue.receive(at=60 * turn)
    queue.nack([message["receipt"]], "cannot parse it", at=241)
    assert queue.receive(at=300) == []
    (dead,) = queue.database.read_now(reward_queue.dead_letters)
    assert dead.reason == "received 5 times and never acked; the last reason given: cannot parse it"
    assert queue.state(at=300).dead == 1
    assert queue.redrive(at=301) == 1
    (message,) = queue.receive(at=301)
    assert message["receive_count"] == 1


def test_dead_letters_do_not_hide_what_waits_behind_them(queue):
    queue.put("g1")
    for turn in range(5):
        queue.receive(at=60 * turn)
    queue.put("g2")
    assert [m["group_id"] for m in queue.receive(at=300, num=1)] == ["g2"]


def test_a_run_receives_its_own_messages_only(queue):
    queue.put("g1", run_id="a")
    queue.put("g2", run_id="b")
    assert [m["group_id"] for m in queue.receive(run_id="b")] == ["g2"]
    assert queue.database.read_now(lambda s: reward_queue.runs_with_messages(s, NOON)) == frozenset(
        {"a"}
    )


def test_every_revision_of_a_group_is_delivered(queue):
    queue.put("g1")
    queue.put("g1", revision=2)
    messages = queue.receive()
    assert sorted(m["reward_revision"] for m in messages) == [1, 2]
    assert [r.status for r in queue.ack([m["receipt"] for m in messages])] == [200, 200]


def test_an_expired_group_is_delivered_and_stays_expired(queue):
    queue.put("g1", state="expired")
    (message,) = queue.receive()
    queue.ack([message["receipt"]])
    assert message["state"] == "expired"
    assert queue.database.read_now(lambda s: s.get(Group, "g1")).state == "expired"


def test_the_state_counts_what_waits_what_is_out_and_how_old_it_is(queue):
    queue.put("g1", "g2", "g3")
    (message,) = queue.receive(at=5, num=1)
    state = queue.state(at=10)
    assert (state.depth, state.in_flight, state.dead) == (2, 1, 0)
    assert state.oldest_created_at == NOON
    queue.ack([message["receipt"]], at=10)
    assert queue.state(at=70).depth == 2


def test_consumers_that_crash_lose_nothing_and_nobody_has_a_message_twice_at_once(queue):
    """Four consumers, of which some forget what they took, while time goes by."""
    num_groups, clock = 40, [0.0]
    queue.put(*[f"g{n}" for n in range(num_groups)])
    acked, out, lock = Counter(), Counter(), threading.Lock()

    def consume(seed):
        rng = random.Random(seed)
        for _ in range(60):
            at = clock[0]
            messages = queue.receive(at=at, num=5, visibility=10)
            with lock:
                clock[0] += 1
                out.update((m["group_id"], m["receive_count"]) for m in messages)
            if rng.random() < 0.25:
                continue  # crashed with what it had
            results = queue.ack([m["receipt"] for m in messages], at=at)
            with lock:
                acked.update(
                    m["group_id"] for m, r in zip(messages, results, strict=True) if r.status == 200
                )

    threads = [threading.Thread(target=consume, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(out.values()) == {1}, "one receive was given to two consumers"
    state = queue.state(at=10_000)
    assert len(acked) + state.depth + state.dead == num_groups
    assert set(acked.values()) == {1}
    assert len(acked) > num_groups / 2
