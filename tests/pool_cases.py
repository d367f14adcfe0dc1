"""A plain worker for the tests of batch pools."""

import threading

from services.runtime.handles import WorkerDiedError

go = threading.Event()
broken: set[str] = set()
"""Hosts whose every call raises."""


class Doubler:
    """Doubles every piece once `go` is set, and remembers its batches."""

    def __init__(self, host: str = "w0") -> None:
        self.host = host
        self.batches: list[list[int]] = []

    def judge(self, *pieces: int) -> tuple[object, ...]:
        """A report, then an answer each."""
        go.wait(20)
        if 13 in pieces:
            raise RuntimeError("thirteen")
        self.batches.append(list(pieces))
        if 66 in pieces:
            raise WorkerDiedError(self.host, "SIGSEGV")
        if self.host in broken or 44 in pieces:
            report = {"images": len(pieces), "evaluations": 1, "failed/OSError": len(pieces)}
            return {**report, "raised": "OSError: no GPU"}, *(-1 for _ in pieces)
        unfit = {"unfit": "it judged 99"} if 99 in pieces else {}
        report = {"images": len(pieces), "evaluations": 1, **unfit}
        return report, *(2 * piece for piece in pieces)

    def seen(self) -> list[list[int]]:
        """Its batches."""
        return self.batches
