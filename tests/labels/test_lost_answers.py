"""Answers get lost and clients ask again, several at once: nothing is lost or done twice."""

import random
import threading
from collections import Counter
from itertools import count

import httpx
import pytest

from services.label_client.client import LabelClient
from services.label_client.models import LabelIn
from services.labels.crowd import CrowdConfig, make_crowd, run_crowd
from services.labels.settings import NO_RATES, Settings
from tests.labels.live import ask, png, put_group
from tests.labels.people import make_annotator, make_key

pytestmark = pytest.mark.integration


class _Lossy(httpx.BaseTransport):
    """A real network that does what it is told and loses a share of the answers."""

    def __init__(self, seed, share=0.3):
        self._inner = httpx.HTTPTransport()
        self._rng = random.Random(seed)
        self._share = share
        self.num_lost = 0

    def handle_request(self, request):
        response = self._inner.handle_request(request)
        if self._rng.random() < self._share:
            response.read()
            self.num_lost += 1
            raise httpx.ReadError("the answer was lost")
        return response

    def close(self):
        self._inner.close()


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        gold_rate=0,
        overlap_rate=0,
        rates=NO_RATES,
    )


@pytest.fixture
def lossy(live_server):
    """A client that loses answers and is patient about it."""
    opened, seeds = [], count()

    def connect(key):
        client = LabelClient(live_server, key, retries=20, backoff_s=0.01, http=_Lossy(next(seeds)))
        opened.append(client)
        return client

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def admin(live_server, keys):
    with LabelClient(live_server, keys["admin"]) as client:
        ask(client)
        yield client


def together(*functions):
    errors = []

    def caught(function):
        try:
            function()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_pushed_labels_are_stored_once(admin, lossy, database, clock):
    groups = [put_group(admin, f"g{n}", num_images=3) for n in range(4)]
    key = make_key(database, "service", clock(), "labels:on_behalf")

    def push(user):
        client = lossy(key)
        for group in groups:
            for image in group.images:
                client.push_label(
                    LabelIn(image_id=image.image_id, value="like", annotator_ref=user)
                )

    together(*[lambda user=user: push(user) for user in ("ann", "bob", "ann", "cem")])
    stored = Counter((label["image_id"], label["annotator_id"]) for label in admin.pages("/labels"))
    assert len(stored) == 4 * 3 * 3
    assert set(stored.values()) == {1}


def test_a_crowd_with_a_bad_line_labels_everything_once(admin, lossy, database, clock):
    for n in range(6):
        put_group(admin, f"g{n}", num_images=2)
    people = []
    for person in make_crowd(CrowdConfig(num_people=3), lambda pixels: 0.5):
        annotator = make_annotator(database, person.name, clock())
        key = make_key(database, "annotator", clock(), annotator_id=annotator)
        people.append((person, lossy(key)))
    run_crowd(people, idle_s=1)
    stored = Counter(label["image_id"] for label in admin.pages("/labels"))
    assert len(stored) == 12
    assert set(stored.values()) == {1}


def test_every_reward_arrives_though_answers_to_receive_and_ack_are_lost(
    admin, lossy, keys, database, clock
):
    key = make_key(database, "service", clock(), "labels:on_behalf")
    pusher = lossy(key)
    for n in range(8):
        for image in put_group(admin, f"g{n}").images:
            pusher.push_label(LabelIn(image_id=image.image_id, value="like", annotator_ref="ann"))
    consumer, seen = lossy(keys["service"]), set()
    for _ in range(30):
        messages = consumer.receive(max_groups=3, visibility_s=30)
        seen |= {(message.group_id, message.reward_revision) for message in messages}
        if messages:
            results = consumer.ack([message.receipt for message in messages])
            assert {result.status for result in results} == {200}
        else:
            clock.advance(31)
    assert seen == {(f"g{n}", 1) for n in range(8)}
    stats = admin.queue_stats()
    assert (stats.depth, stats.in_flight, stats.dead) == (0, 0, 0)


def test_creations_are_done_once(admin, lossy, keys):
    def create():
        lossy(keys["admin"]).request("POST", "/exports", json={})

    together(*[create] * 5)
    assert len(list(admin.pages("/exports"))) == 5


def test_an_image_is_stored_once_by_many(admin, lossy, keys):
    picture = png(1)
    together(*[lambda: lossy(keys["service"]).put_image(picture)] * 4)
    digest = admin.put_image(picture)
    body = {
        "run_id": "r",
        "prompt": {"id": "p", "text": "t"},
        "policy_version": 0,
        "question_id": "like",
        "images": [{"index": 0, "sha256": digest}],
    }
    together(*[lambda: lossy(keys["service"]).put_group("g", body)] * 4)
    assert len(list(admin.pages("/groups"))) == 1
