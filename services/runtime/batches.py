"""What waits for a pool, and how it is cut into batches: up to a size or a wait, whichever first.

    put -> waits, the youngest first -> take: a batch
                                     -> clear_out: nobody wants it any more, or it waited too long

A batch holds whole pieces: as many as fit into its size, and at least one, which may be larger. So
all of a piece is done at once, and its answer leaves as soon as its batch is done.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from services.runtime.handles import Handle, Reference


@dataclass(frozen=True)
class Lost:
    """What a piece gets in place of an answer."""

    state: Literal["expired", "failed"]
    """Whether it was let go, or nobody could do it."""
    kind: str
    """One word for the reason, to be counted by."""
    reason: str
    """Why, for people."""


TOO_OLD = Lost("expired", "too_old", "it was too old for anybody before its turn came")
OVERFLOW = Lost("expired", "overflow", "younger work pushed it out of the reward's full queue")


@dataclass(eq=False)
class Death:
    """One of a worker, while it did something."""

    handle: Handle
    """The worker."""
    is_excused: bool = False
    """Whether it no longer counts against the worker's restarts."""

    def excuse(self) -> None:
        """Not the worker but its work is to blame."""
        if not self.is_excused:
            self.is_excused = True
            self.handle.excuse()


@dataclass(eq=False)
class Piece:
    """Work that is done as a whole."""

    reference: Reference
    """What the worker is given."""
    size: int
    """How much of a batch it fills."""
    since: float
    """When it came, in the pool's seconds."""
    wanted: Callable[[], bool] = lambda: True
    """Whether anybody still has a use for it."""
    answer: "asyncio.Future[Reference | Lost]" = field(default_factory=asyncio.Future)
    """The reference that the worker answers with, or why there is none."""
    deaths: list[Death] = field(default_factory=list)
    """Of workers, while they did it."""
    second_try: "asyncio.Future[bool] | None" = None
    """Whether another worker could do what one failed at; None where none has."""


class BatchQueue:
    """Batches that were put together, as they came; then loose pieces, the youngest first.

    Where more comes than is done, something expires. Oldest first, every piece would be done just
    before it is too old; youngest first, what is done is fresh and only the rest gets old.
    """

    def __init__(
        self, size: int, wait_s: float, capacity: int, deadline_s: float = math.inf
    ) -> None:
        """`capacity`: loose pieces that may wait, each at most `deadline_s` seconds.

        `wait_s` is how long the oldest waits for company.
        """
        self.size, self.wait_s, self.capacity = size, wait_s, capacity
        self.deadline_s = deadline_s
        self._loose: deque[Piece] = deque()  # the youngest first
        self._batches: deque[list[Piece]] = deque()

    @property
    def depth(self) -> int:
        """How much waits, in the unit of a piece's size."""
        batched = sum(piece.size for batch in self._batches for piece in batch)
        return batched + sum(piece.size for piece in self._loose)

    def put(self, piece: Piece) -> Piece | None:
        """Add a piece; the oldest one, where there was no more room."""
        self._loose.appendleft(piece)
        return self._loose.pop() if len(self._loose) > self.capacity else None

    def put_together(self, pieces: Iterable[Piece]) -> None:
        """Add pieces that share batches with one another only, whatever else is waiting.

        So what is in a batch does not depend on time: the same work gives the same numbers.
        """
        waiting = deque(pieces)
        while waiting:
            self._batches.append(self._cut(waiting))

    def put_back(self, *batches: list[Piece]) -> None:
        """Have these very batches done next: their worker died."""
        self._batches.extendleft(reversed(batches))

    def clear_out(self, now: float) -> list[tuple[Piece, Lost]]:
        """Remove loose pieces that nobody wants any more or that have waited too long."""
        reason = f"no worker was free within queue_deadline_s={self.deadline_s:g}"
        overdue = Lost("expired", "queue", reason)
        gone: list[tuple[Piece, Lost]] = []
        for piece in self._loose:
            if not piece.wanted():
                gone.append((piece, TOO_OLD))
            elif now - piece.since >= self.deadline_s:
                gone.append((piece, overdue))
        left = {id(piece) for piece, _ in gone}
        self._loose = deque(piece for piece in self._loose if id(piece) not in left)
        return gone

    def take(self, now: float) -> list[Piece]:
        """The next batch, empty if none is due yet."""
        if self._batches:
            return self._batches.popleft()
        return self._cut(self._loose) if self.due_in_s(now) == 0 else []

    def overdue_in_s(self, now: float) -> float | None:
        """Seconds until the first loose piece has waited too long; None where none waits."""
        return max(self._loose[-1].since + self.deadline_s - now, 0.0) if self._loose else None

    def due_in_s(self, now: float) -> float | None:
        """Seconds until `take` gives a batch, if nothing else comes; None where nothing waits."""
        if self._batches:
            return 0.0
        if not self._loose:
            return None
        if sum(piece.size for piece in self._loose) >= self.size:
            return 0.0
        return max(self._loose[-1].since + self.wait_s - now, 0.0)

    def _cut(self, pieces: deque[Piece]) -> list[Piece]:
        batch = [pieces.popleft()]
        room = self.size - batch[0].size
        while pieces and pieces[0].size <= room:
            batch.append(pieces.popleft())
            room -= batch[-1].size
        return batch
