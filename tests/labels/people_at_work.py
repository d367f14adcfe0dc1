"""A label service with a crowd, for runs in tests: real HTTP, real time, a key for each."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

import uvicorn

from services.label_client.client import LabelClient
from services.labels.app import create_app
from services.labels.crowd import CrowdConfig, CrowdReport, Taste, make_crowd, run_crowd
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.web.clock import utc_now
from tests.labels.people import make_annotator, make_key

KEY_ENV = "TDMR1_TEST_LABELS_KEY"


@dataclass
class LabelOffice:
    """The service and who works there."""

    url: str
    database: Database
    server: uvicorn.Server
    serving: threading.Thread
    stop: threading.Event = field(default_factory=threading.Event)
    reports: list[CrowdReport] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def key(self, role: str, **more: Any) -> str:
        """A fresh key."""
        return make_key(self.database, role, utc_now(), **more)

    def hire(self, crowd: CrowdConfig, taste: Taste) -> None:
        """Let people label until the office closes."""
        people = []
        for person in make_crowd(crowd, taste):
            annotator = make_annotator(self.database, person.name, utc_now())
            people.append(
                (person, LabelClient(self.url, self.key("annotator", annotator_id=annotator)))
            )

        def work() -> None:
            self.reports.append(run_crowd(people, "like", self.stop, idle_s=3600))
            for _, client in people:
                client.close()

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()

    def send_home(self) -> None:
        """Everybody stops labelling."""
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def close(self) -> None:
        """The service is gone."""
        self.server.should_exit = True
        self.serving.join(30)
        assert not self.serving.is_alive()


@contextmanager
def label_office(folder: Path, database_url: str, **settings: Any) -> Iterator[LabelOffice]:
    """A service with the question `like`, whose service key is in the environment."""
    chosen = Settings(data_dir=folder, database_url=database_url, **settings)
    database = Database.open(chosen.url)
    app = create_app(chosen, database=database)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    socket = server.config.bind_socket()
    socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # as `serve` does
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    office = LabelOffice(f"http://127.0.0.1:{socket.getsockname()[1]}", database, server, thread)
    os.environ[KEY_ENV] = office.key("service")
    try:
        with LabelClient(office.url, office.key("admin")) as admin:
            body = {"question_id": "like", "text": "Do you like it?"}
            admin.request("POST", "/questions", json=body)
        yield office
    finally:
        office.send_home()
        office.close()
        database.close()
        del os.environ[KEY_ENV]
