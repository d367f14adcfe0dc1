"""The label service over loopback: a real uvicorn in its own process, cheap clients in this one.

    python -m benchmarks.labels_http [--database-url postgresql+psycopg://...] [--seconds 4]
    python -m benchmarks.labels_http --fill 1000000       # the same once it holds so many labels

Prints durable labels a second with p50, p95 and p99 of a request, pushed one by one and twelve
groups of eight at a time, by 1, 8, 32 and 64 clients; what 100 people wait for a claim and a
submit, apart from their first claims, which all come at once; the server's processor time and
memory. The database should be empty: SQLite's is a fresh file. Clients share the machine with the
server and cost it some 40 microseconds a request.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.label_people import work
from benchmarks.label_server import LabelServer
from benchmarks.load import Client, expect, play, quantile, request

CLIENTS = (1, 8, 32, 64)
GROUP = 8
PEOPLES_GROUP = 4
BATCH = 12 * GROUP
PEOPLE = 100
GROUPS_PER_S = 150
"""Fresh groups made ready for a second of pushing."""
FILL = 100_000
"""Labels that are stored before memory and rate are told again."""
PUTTING = 8
"""Clients that put groups at a time."""


@dataclass(frozen=True)
class Line:
    """One measurement; times in milliseconds."""

    what: str
    clients: int
    per_s: float
    """Labels a second; groups a second for `groups`."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the server, for each of those."""


def main() -> None:
    """Print a line a measurement, then all of it as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--database-url", help="a fresh SQLite file if not given")
    parser.add_argument("--seconds", type=float, default=4, help="a measurement")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--fill", type=int, default=0, help="labels to store before")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        LabelServer(Path(folder), arguments.database_url) as server,
    ):
        bench = Bench(server, arguments.seconds)
        bench.fill(arguments.fill)
        for clients in CLIENTS:
            bench.push(clients)
        bench.crowd(arguments.people)
        bench.note_memory("after")
    kind = server.database_url.partition(":")[0]
    lines = [asdict(line) for line in bench.lines]
    print(json.dumps({"database": kind, "memory_mib": bench.memory_mib, "lines": lines}))


class Bench:
    """Measurements of one server, printed as they come."""

    def __init__(self, server: LabelServer, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._names = itertools.count()
        self.lines: list[Line] = []
        self.memory_mib: dict[str, float] = {}
        self._digests = server.ask(GROUP)
        self.note_memory("before")
        print("what\tclients\ta second\tp50 ms\tp95 ms\tp99 ms\tserver's ms")

    def note_memory(self, when: str) -> None:
        """The server's, at this moment."""
        self.memory_mib[when] = round(self._server.rss_mib(), 1)
        print(f"memory {when}: {self.memory_mib[when]} MiB", flush=True)

    def fill(self, num_labels: int) -> None:
        """Store so many labels, one an image, over HTTP; their groups go past it, or they would
        take longer than the labels."""
        if not num_labels:
            return
        images = self._server.seed_groups(self._digests, -(-num_labels // GROUP))
        for start in range(0, len(images), FILL):
            some = images[start : start + FILL]
            self._measure("fill", PUTTING, _batches(some, self._server.app, str(start)), BATCH)
            self.note_memory(f"at {start + len(some)} labels")

    def push(self, clients: int) -> None:
        """Labels by this many clients, on images that have none; batches then, by other people."""
        busy = min(clients, 8) / 8  # Few clients need few groups.
        images = self._put_groups(int(GROUPS_PER_S * self._seconds * busy))
        key, seconds = self._server.app, self._seconds
        self._measure("single", clients, _singles(images, key), 1, seconds)
        self._measure("batch", clients, _batches(images * 4, key), BATCH, seconds)

    def crowd(self, num_people: int) -> None:
        """People who look at an image for about a second, four images a group."""
        seconds = 5 * self._seconds
        self._put_groups(int(num_people * (seconds + 8) / 4), PEOPLES_GROUP, priority=1)
        names = tuple(f"person {n}" for n in range(num_people))
        keys = self._server.keys("annotator", names)
        since, cpu_s = time.perf_counter(), self._server.cpu_s()
        shift = work(self._server.port, keys, seconds)
        took_s, cpu_s = time.perf_counter() - since, self._server.cpu_s() - cpu_s
        for what, times in (
            ("first claim", shift.first_claims_s),
            ("claim", shift.claims_s),
            ("image", shift.images_s),
            ("submit", shift.submits_s),
        ):
            self._add(what, num_people, times, shift.num_labels, took_s, cpu_s)

    def _put_groups(self, number: int, size: int = GROUP, priority: int = 0) -> list[str]:
        """Image ids of fresh groups."""
        images: list[str] = []
        same = {
            "run_id": "benchmark",
            "prompt": {"id": "p", "text": "two red balls"},
            "policy_version": 0,
            "question_id": "like",
            "priority": priority,
            "images": [{"index": n, "sha256": sha256} for n, sha256 in enumerate(self._digests)],
        }
        same["images"] = same["images"][:size]
        content = json.dumps(same).encode()
        paths = [f"/api/v1/groups/benchmark-{next(self._names)}" for _ in range(number)]
        puts = (request("PUT", path, self._server.app, content) for path in paths)

        def keep(body: bytes) -> None:
            images.extend(image["image_id"] for image in json.loads(body)["images"])

        self._measure("groups", PUTTING, puts, 1, heard=keep)
        return images

    def _measure(
        self,
        what: str,
        clients: int,
        requests: Iterator[bytes],
        each: int,
        seconds: float = float("inf"),
        heard: Callable[[bytes], None] | None = None,
    ) -> None:
        """Send requests that count for `each`, until there are no more or the time is over."""
        times: list[float] = []
        refused = 0
        since, cpu_s = time.perf_counter(), self._server.cpu_s()

        def client() -> Client:
            nonlocal refused
            for wanted in requests:
                if time.perf_counter() - since > seconds:
                    return
                answer = expect((yield wanted), 200, 201, 503)
                if answer.status == 503:  # A busy store is an answer too.
                    refused += 1
                    continue
                times.append(answer.seconds)
                if heard:
                    heard(answer.body)

        play(self._server.port, [client() for _ in range(clients)])
        took_s, cpu_s = time.perf_counter() - since, self._server.cpu_s() - cpu_s
        self._add(what, clients, times, each * len(times), took_s, cpu_s)
        if refused:
            print(f"{what}\t{clients}\t503 for {refused} requests")

    def _add(
        self,
        what: str,
        clients: int,
        times: Sequence[float],
        number: int,
        took_s: float,
        cpu_s: float,
    ) -> None:
        p50, p95, p99 = (1000 * quantile(times, share) for share in (0.5, 0.95, 0.99))
        cpu_ms = 1000 * cpu_s / max(number, 1)
        line = Line(what, clients, number / took_s, p50, p95, p99, cpu_ms)
        self.lines.append(line)
        print(
            f"{what}\t{clients}\t{line.per_s:.0f}\t{p50:.1f}\t{p95:.1f}\t{p99:.1f}\t{cpu_ms:.2f}",
            flush=True,
        )


def _singles(images: Sequence[str], key: str) -> Iterator[bytes]:
    made = []
    for number, label in enumerate(_labels(images)):
        content = json.dumps(label).encode()
        made.append(request("POST", "/api/v1/labels", key, content, f"single-{number}"))
    return iter(made)


def _batches(images: Sequence[str], key: str, name: str = "batch") -> Iterator[bytes]:
    made = []
    for start in range(0, len(images), BATCH):
        labels = [*_labels(images[start : start + BATCH], f"{name}-{start // BATCH}")]
        content = json.dumps({"labels": labels}).encode()
        made.append(request("POST", "/api/v1/labels:batch", key, content, f"{name}-{start}"))
    return iter(made)


def _labels(images: Sequence[str], user: str = "user") -> Iterator[dict[str, str]]:
    for image in images:
        yield {"image_id": image, "value": "like", "annotator_ref": user}


if __name__ == "__main__":
    main()
