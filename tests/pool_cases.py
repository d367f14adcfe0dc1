"""A plain worker for the tests of batch pools."""

import threading

from services.runtime.handles import WorkerDiedError

go = threading.Event()


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
        unfit = {"unfit": "it judged 99"} if 99 in pieces else {}
        report = {"images": len(pieces), "evaluations": 1, **unfit}
        return report, *(2 * piece for piece in pieces)

    def seen(self) -> list[list[int]]:
        """Its batches."""
        return self.batches
