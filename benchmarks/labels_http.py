"""The label service over loopback: a real uvicorn in its own process, clients in this one.

    python -m benchmarks.labels_http [--database-url postgresql+psycopg://...] [--seconds 4]

Prints, for the one database, durable labels a second with p50 and p99 of a request, pushed one by
one and twelve groups of eight at a time, by 1, 8, 32 and 64 clients; what 100 simulated people wait
for a claim and a submit; and the server's memory before and after it all. Clients share the machine
with the server, so more cores give more. The database should be empty: SQLite's is a fresh file.
"""

import argparse
import contextlib
import http.client
import io
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image

from services.label_client.client import LabelClient
from services.labels.annotators import create_annotator
from services.labels.api_keys import create_key
from services.labels.crowd import CrowdConfig, make_crowd, run_crowd
from services.labels.store.database import Database
from services.web.clock import utc_now

CLIENTS = (1, 8, 32, 64)
GROUP = 8
BATCH = 12 * GROUP
PEOPLE = 100


@dataclass(frozen=True)
class Line:
    """One measurement; times in milliseconds."""

    what: str
    clients: int
    labels: int
    labels_per_s: float
    p50_ms: float
    p99_ms: float


class Service:
    """`tdm-r1 serve` in a process of its own, without limits of rate, and the keys to it."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.database_url = database_url
        no_rates = dict.fromkeys(("login", "claim", "label", "requests"))
        settings = {"rates": no_rates, "gold_rate": 0.0, "overlap_rate": 0.0}
        (folder / "settings.yaml").write_text(
            yaml.safe_dump(settings | {"max_open_groups": 10**6, "database_url": database_url})
        )
        self.app = self.key("service", "labels:on_behalf")
        self.admin = self.key("admin")
        self.port = _free_port()
        options = ["--settings", "settings.yaml", "--data", ".", "--port", str(self.port)]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve", *options],
            cwd=folder,
            env=_environment(),
            stdout=self._log,
            stderr=self._log,
        )
        self._await()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def key(self, role: str, *scopes: str, annotator: str | None = None) -> str:
        """A fresh key; of role annotator, the new person's of that name."""
        database = Database.open(self.database_url)

        def operation(session: Any) -> str:
            now = utc_now()
            who = create_annotator(session, annotator, now, "benchmark").id if annotator else None
            return create_key(session, "benchmark", role, now, "benchmark", scopes, who)[1]

        try:
            return database.write_now(operation)
        finally:
            database.close()

    def rss_mib(self) -> float:
        """Resident memory of the server."""
        return psutil.Process(self._process.pid).memory_info().rss / 2**20

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def _await(self) -> None:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the service did not start; its log is {self._log.name}")


def main() -> None:
    """Print a line a measurement, then all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--database-url", help="a fresh SQLite file if not given")
    parser.add_argument("--seconds", type=float, default=4, help="a measurement")
    parser.add_argument("--people", type=int, default=PEOPLE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Service(folder, arguments.database_url or f"sqlite:///{folder / 'labels.db'}")
        try:
            lines, memory = measure(service, arguments.seconds, arguments.people)
        finally:
            service.close()
    kind = service.database_url.partition(":")[0]
    print(json.dumps({"database": kind, "memory": memory, "lines": [asdict(x) for x in lines]}))


def measure(service: Service, seconds: float, people: int) -> tuple[list[Line], dict[str, float]]:
    """Everything, printed as it comes."""
    memory = {"rss_mib_before": service.rss_mib()}
    print("what\tclients\tlabels\tlabels/s\tp50 ms\tp99 ms")
    lines: list[Line] = []
    with LabelClient(service.url, service.admin) as admin:
        question = {"question_id": "like", "text": "Do you like it?"}
        admin.request("POST", "/questions", json=question)
        digests = [admin.put_image(_png(n)) for n in range(GROUP)]
        names = itertools.count()
        for clients in CLIENTS:
            pool = _Pool(_images(admin, digests, names, num_groups=int(60 * seconds)))
            for what, requests in (("single", _singles), ("batch", _batches)):
                lines.append(_push(service, what, clients, seconds, partial(requests, pool)))
        lines += _crowd(service, admin, digests, names, seconds, people)
    memory["rss_mib_after"] = service.rss_mib()
    memory["labels"] = sum(line.labels for line in lines if line.what != "claim")
    print(f"memory\t{memory['rss_mib_before']:.0f} -> {memory['rss_mib_after']:.0f} MiB")
    return lines, memory


Requests = Iterator[tuple[str, dict[str, Any], int]]
"""Path, body and number of labels."""


class _Pool:
    """Images in the order in which they are labelled; who is through with them all begins again
    as somebody else."""

    def __init__(self, images: list[str]) -> None:
        self._images = images
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, number: int, client: int) -> list[dict[str, Any]]:
        """The next verdicts, of one person, who is nobody's but this client's user."""
        with self._lock:
            turn, start = divmod(self._taken, len(self._images))
            images = self._images[start : start + number]
            self._taken += len(images)
        user = f"user-{client}-{turn}"
        return [{"image_id": image, "value": "like", "annotator_ref": user} for image in images]


def _singles(pool: _Pool, client: int) -> Requests:
    while True:
        yield "/api/v1/labels", pool.take(1, client)[0], 1


def _batches(pool: _Pool, client: int) -> Requests:
    while True:
        labels = pool.take(BATCH, client)
        yield "/api/v1/labels:batch", {"labels": labels}, len(labels)


def _push(
    service: Service,
    what: str,
    clients: int,
    seconds: float,
    requests: Callable[[int], Requests],
) -> Line:
    times: list[float] = []
    counts: list[int] = []
    refused: list[int] = []
    end = time.monotonic() + seconds

    def work(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        for path, body, num_labels in requests(client):
            since = time.perf_counter()
            if time.monotonic() > end:
                return
            if _post(connection, service.app, path, body):
                counts.append(num_labels)
            else:
                refused.append(num_labels)
            times.append(time.perf_counter() - since)

    threads = [threading.Thread(target=work, args=(client,)) for client in range(clients)]
    since = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if refused:
        print(f"{what}\t{clients}\t503 for {sum(refused)} labels")
    return _line(what, clients, sum(counts), time.monotonic() - since, times)


def _post(connection: http.client.HTTPConnection, key: str, path: str, body: Any) -> bool:
    """Whether it was stored; a busy store is an answer too."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Idempotency-Key": uuid.uuid4().hex,
        "Content-Type": "application/json",
    }
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    if response.status not in (200, 201, 503):
        raise RuntimeError(f"{path}: {response.status} {content[:300]!r}")
    return response.status != 503


def _crowd(
    service: Service,
    admin: LabelClient,
    digests: list[str],
    names: Iterator[int],
    seconds: float,
    num_people: int,
) -> list[Line]:
    """People who look at an image for a second, a group of four at a time."""
    _images(admin, digests[:4], names, num_groups=int(num_people * (seconds + 4) / 4))
    people = [
        (person, LabelClient(service.url, service.key("annotator", annotator=person.name)))
        for person in make_crowd(CrowdConfig(num_people, median_s=1.0), lambda pixels: 0.5)
    ]
    stop = threading.Event()
    timer = threading.Timer(4 * seconds, stop.set)
    timer.start()
    since = time.monotonic()
    report = run_crowd(people, stop=stop, idle_s=seconds)
    took_s = time.monotonic() - since
    timer.cancel()
    labels = report.values.total()
    return [
        _line(what, num_people, labels, took_s, times)
        for what, times in (("claim", report.claim_s), ("submit", report.submit_s))
    ]


def _images(
    admin: LabelClient, digests: list[str], names: Iterator[int], num_groups: int
) -> list[str]:
    """Image ids of fresh groups."""
    found: list[str] = []
    for _ in range(num_groups):
        body = {
            "run_id": "benchmark",
            "prompt": {"id": "p", "text": "two red balls"},
            "policy_version": 0,
            "question_id": "like",
            "images": [{"index": n, "sha256": digest} for n, digest in enumerate(digests)],
        }
        group = admin.put_group(f"benchmark-{next(names)}", body)
        found += [image.image_id for image in group.images]
    return found


def _line(what: str, clients: int, labels: int, took_s: float, times: list[float]) -> Line:
    times = sorted(times) or [0.0]
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    p50 = statistics.median(times)
    line = Line(what, clients, labels, labels / took_s, 1000 * p50, 1000 * p99)
    print(
        f"{what}\t{clients}\t{labels}\t{line.labels_per_s:.0f}\t{line.p50_ms:.1f}\t{line.p99_ms:.1f}"
    )
    return line


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root}


if __name__ == "__main__":
    main()
