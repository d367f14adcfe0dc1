"""A repeated POST: the same answer, once done, whatever went wrong between."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from services.labels.store.tables import Annotator, IdempotencyRecord
from tests.labels.people import bearer, make_key

pytestmark = pytest.mark.integration

URL = "/api/v1/annotators"


def post(client, key, name, idempotency_key):
    headers = bearer(key, Idempotency_Key=idempotency_key)
    return client.post(URL, json={"name": name}, headers=headers)


def count(database, name):
    query = select(func.count()).where(Annotator.name == name)
    return database.read_now(lambda session: session.scalar(query))


def test_a_retry_gets_the_first_answer_and_does_nothing(client, keys, database):
    first = post(client, keys["admin"], "Eve", "a")
    for _ in range(3):
        again = post(client, keys["admin"], "Eve", "a")
        assert again.content == first.content
        assert again.status_code == 201
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count(database, "Eve") == 1


def test_a_key_belongs_to_its_caller_and_route(client, keys, database, clock):
    other = make_key(database, "admin", clock())
    assert post(client, keys["admin"], "Eve", "a").status_code == 201
    assert post(client, other, "Adam", "a").status_code == 201
    headers = bearer(other, Idempotency_Key="a")
    body = {"name": "x", "role": "viewer"}
    assert client.post("/api/v1/api-keys", json=body, headers=headers).status_code == 201


def test_another_body_under_the_key_is_refused(client, keys, database):
    post(client, keys["admin"], "Eve", "a")
    other = post(client, keys["admin"], "Adam", "a")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert count(database, "Adam") == 0


def test_an_answer_is_kept_for_a_day(client, keys, database, clock):
    post(client, keys["admin"], "Eve", "a")
    clock.advance(24 * 3600)
    assert post(client, keys["admin"], "Eve", "a").headers["idempotency-replayed"] == "true"
    clock.advance(1)
    assert "idempotency-replayed" not in post(client, keys["admin"], "Eve", "a").headers
    assert count(database, "Eve") == 2


def test_a_failure_is_not_kept(client, keys):
    admin = bearer(keys["admin"], Idempotency_Key="a")
    body = {"name": "x", "role": "annotator", "annotator_id": "nobody"}
    failed = client.post("/api/v1/api-keys", json=body, headers=admin)
    assert (failed.status_code, failed.json()["code"]) == (422, "grant-invalid")
    body = {"name": "x", "role": "viewer"}
    assert client.post("/api/v1/api-keys", json=body, headers=admin).status_code == 201


def test_a_repeat_while_the_first_still_runs_is_told_to_wait(client, keys, database):
    """The writers are held, so the first request cannot end."""
    held, go_on = threading.Event(), threading.Event()

    def hold(session):
        held.set()
        go_on.wait(30)

    with ThreadPoolExecutor(8) as pool:
        holding = [pool.submit(database.write_now, hold) for _ in range(4)]
        held.wait(30)
        first = pool.submit(post, client, keys["admin"], "Eve", "a")
        while not client.app.state.running:
            threading.Event().wait(0.01)
        repeat = post(client, keys["admin"], "Eve", "a")
        go_on.set()
        assert (repeat.status_code, repeat.json()["code"]) == (409, "idempotency-key-running")
        assert repeat.headers["retry-after"] == "1"
        assert first.result().status_code == 201
        assert [future.result() for future in holding] == [None] * 4
    assert post(client, keys["admin"], "Eve", "a").headers["idempotency-replayed"] == "true"
    assert count(database, "Eve") == 1


def test_two_processes_that_get_the_same_request_do_it_once(client, app, keys, database):
    """Two `running` memories over one database, as two processes have them."""
    from fastapi.testclient import TestClient

    from services.labels.app import create_app
    from tests.labels.people import BASE_URL

    other = create_app(app.state.settings, app.state.clock, database)
    with TestClient(other, BASE_URL) as second, ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(post, (client, second)[n % 2], keys["admin"], "Eve", "a") for n in range(8)
        ]
        answers = [future.result() for future in asked]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert count(database, "Eve") == 1


def test_no_answer_is_kept_without_what_it_tells_and_nothing_done_without_its_answer(
    client, keys, database
):
    """One transaction: an operation that fails after its work leaves neither."""
    post(client, keys["admin"], "Eve", "a")
    query = select(func.count()).select_from(IdempotencyRecord)
    assert database.read_now(lambda session: session.scalar(query)) == 1
    headers = bearer(keys["admin"], Idempotency_Key="b" * 201)
    answer = client.post(URL, json={"name": "Adam"}, headers=headers)
    assert answer.json()["errors"][0]["pointer"] == "header:Idempotency-Key"
    assert count(database, "Adam") == 0
