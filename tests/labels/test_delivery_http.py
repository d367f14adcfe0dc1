"""From a label to the trainer, to listeners, to webhooks and files: over a real server."""

import contextlib
import csv
import hashlib
import io
import json
import socket
import threading
import time

import httpx
import pytest

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError
from services.label_client.models import LabelIn
from services.labels.settings import Settings
from services.labels.webhooks import sign
from tests.labels.live import ask, eventually, fresh, label_all, put_group
from tests.labels.people import bearer, make_key

pytestmark = pytest.mark.integration


@pytest.fixture
def database_url(one_database_url):
    """What is below HTTP is tried on both databases elsewhere."""
    return one_database_url


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        gold_rate=0,
        overlap_rate=0,
        webhook_hosts=("127.0.0.1:*",),
        webhook_private=True,
    )


@pytest.fixture
def people(live_server, keys, database, clock):
    """A client of each role, and `app`, which speaks for the users of an app."""
    texts = {**keys, "app": make_key(database, "service", clock(), "labels:on_behalf")}
    clients = {who: LabelClient(live_server, text) for who, text in texts.items()}
    ask(clients["admin"])
    yield clients
    for client in clients.values():
        client.close()


class _Listener:
    """An SSE client in a thread: what it has heard, in order."""

    def __init__(self, url, key, topics="", last_id=None):
        self.ids, self.events, self.status = [], [], None
        self._headers = bearer(key) | ({} if last_id is None else {"Last-Event-ID": str(last_id)})
        self._url = f"{url}/api/v1/events" + (f"?topics={topics}" if topics else "")
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        assert self._open.wait(10)

    def _listen(self):
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream("GET", self._url, headers=self._headers, timeout=30) as response,
        ):
            self.status, self.headers = response.status_code, response.headers
            self._socket = response.extensions["network_stream"].get_extra_info("socket")
            for line in response.iter_lines():
                self._open.set()
                if line.startswith("id: "):
                    self.ids.append(int(line[4:]))
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))

    def close(self):
        """Cut the line."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def test_labels_become_a_reward_that_is_received_and_acked(people):
    group = put_group(people["service"], "g1")
    label_all(people["app"], group)
    (message,) = people["service"].receive(run_id="run-7")
    assert (message.group_id, message.state, message.coverage) == ("g1", "ready", 1.0)
    assert {image.image_id for image in message.images} == {i.image_id for i in group.images}
    assert all(image.mu > 0.5 and image.n == 1 for image in message.images)
    assert people["service"].receive() == []
    (first,), (second,) = (people["service"].ack([message.receipt]) for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    assert people["service"].group("g1").state == "consumed"


def test_a_waiting_consumer_is_woken_by_a_label(people):
    group = put_group(people["service"], "g1")
    timer = threading.Timer(0.4, label_all, (people["app"], group))
    start = time.monotonic()
    timer.start()
    (message,) = people["service"].receive(wait_s=10)
    assert message.group_id == "g1"
    assert 0.3 < time.monotonic() - start < 5
    timer.join()


def test_a_wait_without_news_ends_in_time_and_empty(people):
    start = time.monotonic()
    assert people["service"].receive(wait_s=1) == []
    assert 0.9 < time.monotonic() - start < 3


def test_every_receipt_has_its_own_result(people, clock):
    for name in ("g1", "g2"):
        label_all(people["app"], put_group(people["service"], name))
    stale, kept = people["service"].receive(visibility_s=60)
    people["service"].extend([kept.receipt], 600)
    clock.advance(61)
    (again,) = people["service"].receive()
    assert again.group_id == stale.group_id
    results = people["service"].ack([stale.receipt, kept.receipt, "nonsense"])
    assert [result.status for result in results] == [409, 200, 409]
    assert results[0].problem["code"] == "receipt-stale"
    (result,) = people["service"].nack([again.receipt], "disk full")
    assert result.status == 200
    assert people["service"].receive()[0].receive_count == 3


def test_only_admins_look_at_the_queue_and_redrive(people, clock):
    label_all(people["app"], put_group(people["service"], "g1"))
    for _ in range(6):
        people["service"].receive(visibility_s=1)
        clock.advance(2)
    stats = people["admin"].queue_stats()
    assert (stats.depth, stats.in_flight, stats.dead) == (0, 0, 1)
    assert stats.dead_letters[0]["group_id"] == "g1"
    with pytest.raises(LabelServiceError) as refused:
        people["service"].redrive()
    assert refused.value.status == 403
    assert people["admin"].redrive() == 1
    assert people["service"].receive()[0].receive_count == 1


@pytest.mark.parametrize("who", ["viewer", "annotator"])
def test_who_only_looks_or_labels_takes_no_rewards(people, who):
    with pytest.raises(LabelServiceError) as refused:
        people[who].receive()
    assert refused.value.status == 403


def test_a_listener_hears_labels_and_rewards_and_resumes_where_it_was(live_server, people, keys):
    listener = _Listener(live_server, keys["viewer"], "labels,rewards")
    assert listener.status == 200
    assert listener.headers["content-type"].startswith("text/event-stream")
    assert listener.headers["x-accel-buffering"] == "no"
    label_all(people["app"], put_group(people["service"], "g1"))
    eventually(lambda: len(listener.events) >= 2)
    last = listener.ids[-1]
    assert {event["topic"] for event in listener.events} == {"labels", "rewards"}
    label_all(people["app"], put_group(people["service"], "g2"))
    again = _Listener(live_server, keys["viewer"], "labels,rewards", last)
    eventually(lambda: len(again.events) >= 2 and len(listener.events) >= 4)
    listener.close()
    again.close()
    assert {event["data"]["group_id"] for event in again.events} == {"g2"}
    assert again.ids == [number for number in listener.ids if number > last]


def test_an_annotator_hears_nothing_of_others(live_server, people, keys):
    listener = _Listener(live_server, keys["annotator"], last_id=0)
    label_all(people["app"], put_group(people["service"], "g1"))
    time.sleep(0.5)
    assert listener.events == []
    listener.close()


def test_a_key_has_four_streams_and_gets_a_place_back(live_server, people, keys, app):
    listeners = [_Listener(live_server, keys["viewer"]) for _ in range(4)]
    fifth = httpx.get(f"{live_server}/api/v1/events", headers=bearer(keys["viewer"]))
    assert (fifth.status_code, fifth.json()["code"]) == (429, "too-many-streams")
    other = _Listener(live_server, keys["service"])
    for listener in [*listeners, other]:
        listener.close()
    eventually(lambda: not app.state.streams)
    assert app.state.bus.num_listeners == 0


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [("?topics=nonsense", {}, 422), ("", {"Last-Event-ID": "x"}, 422), ("?topics=", {}, 422)],
)
def test_a_stream_that_makes_no_sense_is_refused(live_server, keys, query, headers, status):
    url = f"{live_server}/api/v1/events{query}"
    answer = httpx.get(url, headers=bearer(keys["viewer"]) | headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_webhook_is_told_of_its_topics_signed(people, receiver):
    admin, requests = people["admin"], receiver.requests
    hook = {"url": receiver.url("ok"), "topics": ["rewards"]}
    made = admin.request("POST", "/webhooks", json=hook)
    hook = made.json()
    assert made.headers["location"] == f"/api/v1/webhooks/{hook['webhook_id']}"
    label_all(people["app"], put_group(people["service"], "g1"))
    eventually(lambda: requests)
    _, headers, body = requests[0]
    event = json.loads(body)
    assert (event["type"], event["data"]["group_id"]) == ("group.ready", "g1")
    timestamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == sign(
        hook["secret"], headers["webhook-id"], timestamp, body
    )
    path = f"/webhooks/{hook['webhook_id']}"
    assert "secret" not in admin.request("GET", path).json()
    log = lambda: admin.request("GET", f"{path}/deliveries").json()["items"]  # noqa: E731
    eventually(lambda: [item["state"] for item in log()] == ["delivered"])

    admin.request("POST", f"{path}:test")
    eventually(lambda: len(requests) == 2)
    assert json.loads(requests[1][2])["type"] == "webhook.test"
    body = {"delivery_ids": [headers["webhook-id"]]}
    assert admin.request("POST", f"{path}:replay", json=body).json() == {"replayed": 1}
    eventually(lambda: len(requests) == 3)
    assert requests[2][1]["webhook-id"] == headers["webhook-id"]


def test_a_repeated_creation_of_a_webhook_does_not_show_the_secret_again(people, receiver):
    once = {"Idempotency-Key": fresh()}
    body = {"url": receiver.url("ok"), "topics": ["labels"]}
    first, again = (
        people["admin"].request("POST", "/webhooks", json=body, headers=once) for _ in range(2)
    )
    assert first.json()["secret"].startswith("whsec_")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json() | {"secret": None}


def test_a_webhook_is_changed_and_removed_under_its_etag(people, receiver):
    admin = people["admin"]
    hook = {"url": receiver.url("ok"), "topics": ["labels"]}
    made = admin.request("POST", "/webhooks", json=hook)
    path = f"/webhooks/{made.json()['webhook_id']}"
    with pytest.raises(LabelServiceError) as missing:
        admin.request("PATCH", path, json={"state": "disabled"})
    assert missing.value.status == 428
    changed = admin.request(
        "PATCH", path, json={"state": "disabled"}, headers={"If-Match": made.headers["etag"]}
    )
    assert changed.json()["state"] == "disabled"
    with pytest.raises(LabelServiceError) as disabled:
        admin.request("POST", f"{path}:test")
    assert disabled.value.code == "webhook-disabled"
    with pytest.raises(LabelServiceError) as stale:
        admin.request("DELETE", path, headers={"If-Match": made.headers["etag"]})
    assert stale.value.status == 412
    admin.request("DELETE", path, headers={"If-Match": changed.headers["etag"]})
    with pytest.raises(LabelServiceError) as gone:
        admin.request("GET", path)
    assert gone.value.status == 404


def test_a_webhook_to_elsewhere_is_refused_with_the_reason(people):
    for url in ("http://169.254.169.254/latest", "https://evil.test/", "file:///etc/passwd"):
        with pytest.raises(LabelServiceError) as refused:
            people["admin"].request("POST", "/webhooks", json={"url": url, "topics": ["labels"]})
        assert (refused.value.status, refused.value.code) == (422, "url-not-allowed")
        assert refused.value.errors[0]["pointer"] == "#/url"


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_an_export_is_a_file_with_a_manifest(people, format):
    group = put_group(people["service"], "g1")
    label_all(people["app"], group, "=cmd()")
    note = LabelIn(
        image_id=group.images[0].image_id, value="dislike", annotator_ref="b", note="=1+1"
    )
    people["app"].push_label(note)
    admin = people["admin"]
    made = admin.request(
        "POST", "/exports", json={"format": format, "filters": {"run_id": "run-7"}}
    )
    assert made.status_code == 202
    path = made.headers["location"].removeprefix("/api/v1")
    view = eventually(lambda: _done(admin, path))
    content = admin.request("GET", f"{path}/file").content
    manifest = view["manifest"]
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert (manifest["num_rows"], manifest["num_bytes"]) == (3, len(content))
    assert (manifest["schema_version"], manifest["filters"]["run_id"]) == (1, "run-7")
    if format == "jsonl":
        rows = [json.loads(line) for line in content.splitlines()]
        assert {row["note"] for row in rows} == {None, "=1+1"}
    else:
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        assert {row["note"] for row in rows} == {"", "'=1+1"}
    assert [row["group_id"] for row in rows] == ["g1"] * 3
    assert {row["annotator"][:2] for row in rows} == {"p_"}
    assert len({row["annotator"] for row in rows}) == 2
    assert "cmd()" not in content.decode()


def _done(admin, path):
    view = admin.request("GET", path).json()
    return view if view["state"] == "done" else None


def test_an_export_that_cannot_be_written_says_so_and_keeps_nobody_waiting(people, settings):
    (settings.data_dir / "exports").write_text("a file where the folder should be")
    admin = people["admin"]
    path = admin.request("POST", "/exports", json={}).headers["location"].removeprefix("/api/v1")
    view = eventually(lambda: _ended(admin, path))
    assert view["state"] == "failed"
    assert view["error"].startswith("the file could not be written")
    with pytest.raises(LabelServiceError) as refused:
        admin.request("GET", f"{path}/file")
    assert refused.value.code == "export-not-done"


def _ended(admin, path):
    view = admin.request("GET", path).json()
    return view if view["state"] != "pending" else None


def test_an_export_of_nothing_is_an_empty_file_and_filters_filter(people):
    label_all(people["app"], put_group(people["service"], "g1"))
    admin = people["admin"]
    made = admin.request("POST", "/exports", json={"filters": {"run_id": "another"}})
    view = eventually(lambda: _done(admin, made.headers["location"].removeprefix("/api/v1")))
    assert view["manifest"]["num_rows"] == 0


def test_only_admins_export_and_have_webhooks(people):
    for who in ("viewer", "annotator", "service"):
        for path, body in (
            ("/exports", {}),
            ("/webhooks", {"url": "https://x.test", "topics": ["labels"]}),
        ):
            with pytest.raises(LabelServiceError) as refused:
                people[who].request("POST", path, json=body)
            assert refused.value.status == 403


def test_a_repeated_creation_is_done_once_whether_together_or_after(live_server, people, keys):
    """The answer is lost, so the client asks again: five times at once, and once more later."""
    key = fresh()
    statuses = []

    def post():
        answer = httpx.post(
            f"{live_server}/api/v1/exports",
            json={},
            headers=bearer(keys["admin"], **{"Idempotency-Key": key}),
        )
        statuses.append((answer.status_code, answer.json().get("export_id")))

    threads = [threading.Thread(target=post) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    post()
    done = {identity for status, identity in statuses if status == 202}
    assert len(done) == 1
    assert statuses[-1] == (202, done.pop())
    assert {status for status, _ in statuses} <= {202, 409}
    assert len(list(people["admin"].pages("/exports"))) == 1
