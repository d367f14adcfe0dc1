"""Batches are whole pieces up to a size or a wait, whichever first."""

import asyncio
import math
from collections.abc import Iterator

import pytest

from services.runtime.batches import BatchQueue, Piece

pytestmark = pytest.mark.unit


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Pieces hold a future, which needs a loop to belong to."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture
def pieces(loop):
    """Makes pieces of the sizes given, all come at second 0."""
    return lambda *sizes: [Piece(f"piece {i}", size, 0.0) for i, size in enumerate(sizes)]


def queue(
    size: int = 8, wait_s: float = 5.0, capacity: int = 100, deadline_s: float = math.inf
) -> BatchQueue:
    return BatchQueue(size, wait_s, capacity, deadline_s)


def test_a_batch_is_due_once_it_is_full(pieces):
    used, (a, b, c) = queue(), pieces(3, 3, 3)
    used.put(a)
    used.put(b)
    assert used.take(now=1.0) == []
    used.put(c)
    assert used.depth == 9
    assert used.take(now=1.0) == [c, b]
    assert (used.take(now=1.0), used.depth) == ([], 3)


def test_a_batch_is_due_once_its_oldest_has_waited_long_enough(pieces):
    used, (a, b) = queue(), pieces(3, 3)
    used.put(a)
    used.put(b)
    assert used.due_in_s(now=4.0) == 1.0
    assert used.take(now=4.99) == []
    assert used.take(now=5.0) == [b, a]
    assert used.due_in_s(now=5.0) is None


def test_without_a_wait_what_is_there_is_taken(pieces):
    used, (a,) = queue(wait_s=0.0), pieces(1)
    assert used.due_in_s(0.0) is None
    used.put(a)
    assert used.due_in_s(0.0) == 0.0
    assert used.take(0.0) == [a]


def test_a_piece_larger_than_a_batch_is_one_by_itself(pieces):
    used, (a, b) = queue(), pieces(20, 1)
    used.put(b)
    used.put(a)
    assert used.take(0.0) == [a]


def test_pieces_put_together_share_batches_with_one_another_only(pieces):
    used, (a, b, c, d) = queue(), pieces(4, 4, 4, 4)
    used.put(a)
    used.put_together([b, c, d])
    assert [used.take(0.0) for _ in range(3)] == [[b, c], [d], []]
    assert used.take(5.0) == [a]


def test_a_batch_that_is_put_back_comes_next_and_unchanged(pieces):
    used, (a, b, c) = queue(), pieces(4, 4, 8)
    for piece in (a, b, c):
        used.put(piece)
    first = used.take(0.0)
    used.put_back(first)
    assert first == [c]
    assert (used.take(0.0), used.take(0.0)) == ([c], [b, a])


def test_a_full_queue_pushes_its_oldest_out(pieces):
    used, (a, b, c) = queue(capacity=2), pieces(1, 1, 1)
    assert [used.put(a), used.put(b), used.put(c)] == [None, None, a]
    assert used.take(5.0) == [c, b]


def test_what_waits_too_long_or_is_wanted_by_nobody_leaves_from_anywhere(pieces):
    used, (a, b, c, d) = queue(size=99, deadline_s=10.0), pieces(1, 1, 1, 1)
    for second, piece in enumerate((a, b, c, d)):
        piece.since = float(second)
        used.put(piece)
    c.wanted = lambda: False
    assert used.overdue_in_s(9.5) == 0.5
    assert [(piece, lost.kind) for piece, lost in used.clear_out(9.5)] == [(c, "too_old")]
    gone = used.clear_out(11.0)
    assert [piece for piece, _ in gone] == [b, a]
    assert gone[0][1].reason == "no worker was free within queue_deadline_s=10"
    assert (used.depth, used.overdue_in_s(11.0)) == (1, 2.0)
    assert used.take(11.0) == [d]
    assert used.overdue_in_s(11.0) is None


def test_what_comes_twice_as_fast_as_it_is_done_is_done_while_it_is_fresh(pieces):
    """Two pieces a second come and one is done; the oldest of those left are pushed out."""
    used, ages = queue(size=1, wait_s=0.0, capacity=20), []
    for second in range(50):
        for piece in pieces(1, 1):
            piece.since = float(second)
            used.put(piece)
        (taken,) = used.take(float(second))
        ages.append(second - taken.since)
    assert ages == [0.0] * 50


def test_the_oldest_piece_s_wait_makes_a_batch_due_though_the_youngest_goes_first(pieces):
    used, (a, b) = queue(), pieces(5, 5)
    b.since = 4.0
    used.put(a)
    used.put(b)
    assert used.take(now=4.0) == [b]
    assert used.due_in_s(now=4.0) == 1.0
    assert used.take(now=5.0) == [a]
