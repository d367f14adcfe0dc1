"""`tdm-r1 serve` in a process of its own, on a free port, and the keys to it."""

import contextlib
import http.client
import io
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from PIL import Image
from sqlalchemy import insert
from sqlalchemy.orm import Session

from services.label_client.client import LabelClient
from services.labels.annotators import create_annotator
from services.labels.api_keys import create_key
from services.labels.store.database import Database
from services.labels.store.tables import Group, GroupImage, Run, core
from services.web.clock import utc_now

NO_LIMITS = {
    "rates": dict.fromkeys(("login", "claim", "label", "requests")),
    "max_open_groups": 10**7,
    "gold_rate": 0.0,
    "overlap_rate": 0.0,
}
START_S = 60
SEEDED_AT_ONCE = 2000


class LabelServer:
    """The service with its data in `folder`, without limits of rate; `settings` are over that."""

    def __init__(self, folder: Path, database_url: str | None = None, **settings: Any) -> None:
        self.database_url = database_url or f"sqlite:///{folder / 'labels.db'}"
        settings = {**NO_LIMITS, "database_url": self.database_url, **settings}
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
        self.app = self.keys("service", scopes=("labels:on_behalf",))[0]
        self.admin = self.keys("admin")[0]
        self.log = folder / "log"
        self.port = 0
        self.start()

    def __enter__(self) -> "LabelServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def start(self) -> None:
        """On a free port; once more, on the one that it had."""
        options = ["--settings", "settings.yaml", "--data", ".", "--port", str(self.port)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "serve", *options],
                cwd=self.log.parent,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdout=log,
                stderr=log,
            )
        self.port = self._await()

    def kill(self) -> None:
        """At once, whatever it is doing."""
        self._process.kill()
        self._process.wait(30)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process, for a profiler."""
        return self._process.pid

    def keys(
        self, role: str, people: tuple[str, ...] = (), scopes: tuple[str, ...] = ()
    ) -> list[str]:
        """A fresh key; or one for each of these new people."""

        def operation(session: Session) -> list[str]:
            now, made = utc_now(), "benchmark"
            ids: list[Any] = [create_annotator(session, name, now, made).id for name in people]
            return [
                create_key(session, made, role, now, made, scopes, annotator_id)[1]
                for annotator_id in ids or [None]
            ]

        database = Database.open(self.database_url)
        try:
            return database.write_now(operation)
        finally:
            database.close()

    def ask(self, num_pictures: int) -> list[str]:
        """Make the question `like`, and pictures of noise, 64 pixels a side: their digests."""
        with LabelClient(self.url, self.admin) as admin:
            question = {"question_id": "like", "text": "Do you like it?"}
            admin.request("POST", "/questions", json=question)
            return [admin.put_image(_png(n)) for n in range(num_pictures)]

    def seed_groups(self, digests: list[str], number: int) -> list[str]:
        """Groups of these pictures, of the run `benchmark`, written past the service: the ids of
        their images."""
        same = {
            "run_id": "benchmark",
            "prompt_id": "p",
            "prompt_text": "two red balls",
            "question_id": "like",
            "policy_version": 0,
            "sampler": {},
            "auto_rewards": {},
            "num_images": len(digests),
            "body_sha256": "",
            "created_at": utc_now(),
        }
        images: list[str] = []

        def add(session: Session, numbers: range) -> None:
            session.merge(Run(id="benchmark", newest_policy=0))
            session.flush()
            session.execute(insert(core(Group)), [{**same, "id": f"seed-{n}"} for n in numbers])
            places = [
                {"id": f"{n}-{index}", "group_id": f"seed-{n}", "index": index, "sha256": sha256}
                for n in numbers
                for index, sha256 in enumerate(digests)
            ]
            session.execute(insert(core(GroupImage)), places)
            images.extend(place["id"] for place in places)

        database = Database.open(self.database_url)
        try:
            for start in range(0, number, SEEDED_AT_ONCE):
                numbers = range(start, min(start + SEEDED_AT_ONCE, number))
                database.write_now(partial(add, numbers=numbers))
        finally:
            database.close()
        return images

    def rss_mib(self) -> float:
        """Resident memory."""
        return psutil.Process(self.pid).memory_info().rss / 2**20

    def cpu_s(self) -> float:
        """Processor time so far."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def _await(self) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", self.log.read_text())
            if found and _is_ready(int(found[1])):
                return int(found[1])
            time.sleep(0.1)
        raise RuntimeError(f"the service did not start: {self.log.read_text()[-2000:]}")


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False
