"""Who uses a service that is killed under them: people, apps and a trainer, each over HTTP. Whoever
gets no answer sends the same request again, until there is one."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.label_server import LabelServer
from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError
from services.label_client.models import LabelIn
from tests.labels.live import put_group

AHEAD = 8
"""Groups that wait for rewards."""
PEOPLE = ("ann", "bob", "cem")
APPS = 3
PATIENCE_S = 60


class Users:
    """They work within a `with`, and write down what they were told."""

    def __init__(self, server: LabelServer) -> None:
        self.labels: dict[str, tuple[str, str]] = {}
        """Of every label that was acknowledged: image and value."""
        self.digests: set[str] = set()
        self.groups: dict[str, list[str]] = {}
        """Images of every group that was put."""
        self.acked: set[tuple[str, int]] = set()
        self._server = server
        self._feeding = self._working = True
        self._failures: list[BaseException] = []
        work = [self._train]
        work += [lambda key=key: self._label(key) for key in server.keys("annotator", PEOPLE)]
        work += [lambda n=n: self._push(n) for n in range(APPS)]
        self._threads = [threading.Thread(target=self._notice, args=(each,)) for each in work]

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._feeding = self._working = False
        for thread in self._threads:
            thread.join()

    def connect(self, key: str) -> LabelClient:
        """A client that does not give up."""
        quick = lambda seconds: time.sleep(min(seconds, 0.05))  # noqa: E731
        return LabelClient(self._server.url, key, retries=1000, sleep=quick)

    def await_labels(self, number: int) -> None:
        """Until so many more have been acknowledged."""
        wanted = len(self.labels) + number
        self._await(lambda: len(self.labels) >= wanted)

    def await_rewards(self) -> None:
        """No group is added any more; until every one is labelled and rewarded."""
        self._feeding = False
        self._await(lambda: {id for id, _ in self.acked} == self.groups.keys())

    def _await(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not condition():
            if self._failures:
                raise self._failures[0]
            if time.monotonic() > until:
                raise TimeoutError(f"{len(self.labels)} labels, {len(self.groups)} groups")
            time.sleep(0.005)

    def _notice(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self._failures.append(failure)
            raise

    def _label(self, key: str) -> None:
        draw = random.Random(key)
        with self.connect(key) as client:
            while self._working:
                lease = client.claim()
                if lease is None or draw.random() < 0.1:  # then others wait for it to run out
                    time.sleep(0.05)
                    continue
                ids = [image.image_id for image in lease.images]
                said = [LabelIn(image_id=id, value=draw.choice(("like", "dislike"))) for id in ids]
                try:
                    for some, final in ((said[:1], False), (said, True)):
                        self._keep(client.submit(lease, some, final)["labels"])
                except LabelServiceError as refusal:
                    if refusal.code != "lease-lost":
                        raise

    def _push(self, number: int) -> None:
        """As an app does: a group's labels one by one, or all at once."""
        draw = random.Random(number)
        with self.connect(self._server.app) as client:
            for user in self._users(number):
                images = draw.choice([*self.groups.values()] or [[]])
                said = [LabelIn(image_id=id, value="like", annotator_ref=user) for id in images]
                if number:
                    self._keep([client.push_label(label) for label in said])
                elif said:
                    results = client.push_labels(said)
                    pairs = zip(said, results, strict=True)
                    self._keep([{"id": done.id, **label.wire()} for label, done in pairs])

    def _users(self, number: int) -> Iterator[str]:
        count = 0
        while self._feeding:
            yield f"user {number}.{count}"
            count += 1

    def _train(self) -> None:
        """Groups in, rewards out."""
        with self.connect(self._server.app) as client:
            while self._working:
                if self._feeding and len(self.groups) - len(self.acked) < AHEAD:
                    group = put_group(client, f"g{len(self.groups)}")
                    self.digests |= {image.sha256 for image in group.images}
                    self.groups[group.group_id] = [image.image_id for image in group.images]
                messages = client.receive(max_groups=4, visibility_s=1)
                results = client.ack([each.receipt for each in messages]) if messages else []
                for message, result in zip(messages, results, strict=True):
                    if result.status == 200:
                        self.acked.add((message.group_id, message.reward_revision))

    def _keep(self, labels: Sequence[dict[str, Any]]) -> None:
        for label in labels:
            self.labels[label["id"]] = label["image_id"], label["value"]
