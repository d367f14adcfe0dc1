"""Errors: every one is a problem of RFC 9457, and none tells what is not the caller's."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.labels.app import create_app
from services.labels.settings import Rates, Settings
from services.labels.store.faults import StoreUnavailable
from services.web.limits import Rate
from services.web.problems import MEDIA_TYPE, Problem
from tests.labels.people import BASE_URL, bearer

pytestmark = pytest.mark.integration

FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


@pytest.fixture
def database_url(one_database_url) -> str:
    """What is tested here never reaches the database."""
    return one_database_url


@pytest.fixture
def settings(tmp_path, database_url) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, max_body_bytes=1000)


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    """With routes that break."""

    @app.get("/broken")
    async def broken():
        raise RuntimeError("the password is swordfish")

    @app.get("/full")
    async def full():
        raise StoreUnavailable("the disk is full")

    @app.get("/late")
    async def late():
        raise Problem(410, "gone", "Gone", "too late")

    return app


def check(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert set(problem) == FIELDS
    assert problem["status"] == status
    assert problem["type"] == f"/problems/{code}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    return problem


def test_every_error_is_a_problem(client, keys):
    admin = bearer(keys["admin"])
    fresh = admin | {"Idempotency-Key": "x"}
    url = "/api/v1/annotators"

    check(client.get("/api/v1/x"), 401, "unauthenticated")
    check(client.get("/x"), 404, "not-found")
    check(client.get("/api/v1/x", headers=admin), 404, "not-found")
    check(client.delete("/healthz"), 405, "method-not-allowed")
    check(client.get(url, headers=bearer(keys["viewer"])), 403, "forbidden")
    check(client.get("/late"), 410, "gone")
    check(client.post(url, json={"name": "a"}, headers=admin), 400, "idempotency-key-missing")
    check(client.post(url, json={"name": "a" * 999}, headers=fresh), 413, "content-too-large")
    check(client.post(url, json={"name": "a" * 300}, headers=fresh), 422, "invalid-request")
    json_type = {"Content-Type": "application/json"}
    check(client.post(url, content="{", headers=fresh | json_type), 400, "malformed-json")
    xml_type = {"Content-Type": "text/xml"}
    check(client.post(url, content="<a/>", headers=fresh | xml_type), 415, "unsupported-media-type")
    check(client.get(f"{url}?limit=501", headers=admin), 422, "invalid-request")
    unavailable = client.get("/full")
    check(unavailable, 503, "unavailable")
    assert unavailable.headers["retry-after"]


def test_a_fault_of_ours_tells_its_request_id_and_logs_the_rest(client, caplog):
    answer = client.get("/broken")
    problem = check(answer, 500, "internal-error")
    assert "swordfish" not in answer.text
    assert "Traceback" not in answer.text
    assert f"request {problem['request_id']} failed" in caplog.text
    assert "swordfish" in caplog.text


def test_a_field_that_is_wrong_is_pointed_at_and_not_repeated(client, keys):
    body = {"name": "a", "role": "swordfish", "more": 1}
    headers = bearer(keys["admin"], Idempotency_Key="x")
    answer = client.post("/api/v1/api-keys", json=body, headers=headers)
    assert {error["pointer"] for error in answer.json()["errors"]} == {"#/role", "#/more"}
    assert "swordfish" not in answer.text


def test_a_body_that_grows_past_its_limit_is_cut_off(app, keys):
    """Without a Content-Length there is nothing to believe."""
    sent = []

    async def endless():
        while True:
            sent.append(b" " * 1000)
            yield sent[-1]

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.post(
                f"{BASE_URL}/api/v1/annotators",
                content=endless(),
                headers=bearer(keys["admin"]) | {"Content-Type": "application/json"},
            )

    check(asyncio.run(ask()), 413, "content-too-large")
    assert len(sent) == 2


def test_a_request_id_that_could_forge_a_log_line_is_replaced(client):
    for forged in ("a b", "x" * 65, "a\tb", ""):
        answer = client.get("/healthz", headers={"X-Request-Id": forged})
        assert answer.headers["x-request-id"] != forged


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost:x", "@"])
def test_a_page_that_rebinds_its_name_to_us_is_turned_away(client, keys, host):
    answer = client.get("/api/v1/audit", headers=bearer(keys["admin"]) | {"Host": host})
    check(answer, 400, "host-not-allowed")


def test_a_request_has_one_name_for_us(client, keys):
    names = [("Host", "127.0.0.1:8321"), ("Host", "evil.example")]
    answer = client.get("/api/v1/audit", headers=[*bearer(keys["admin"]).items(), *names])
    check(answer, 400, "host-not-allowed")


@pytest.mark.parametrize("scheme", ["Basic", "tdmr1", "Bearer Bearer"])
def test_only_bearers_of_our_keys_come_in(client, keys, scheme):
    headers = {"Authorization": f"{scheme} {keys['admin']}"}
    check(client.get("/api/v1/audit", headers=headers), 401, "unauthenticated")


def test_a_key_with_one_letter_changed_is_nobodys(client, keys):
    key = keys["admin"]
    wrong = [key[:-2] + "zz", key.replace("tdmr1_0", "tdmr1_1"), key[:-1], key + "A", key.lower()]
    for forged in wrong:
        check(client.get("/api/v1/audit", headers=bearer(forged)), 401, "unauthenticated")


def test_a_key_in_an_address_is_refused_however_it_is_written(client, keys):
    key = keys["admin"]
    escaped = "".join(f"%{ord(letter):02x}" for letter in key)
    for address in (f"/?k={key}", f"/{key}", f"/healthz?{escaped}", f"/api/v1/audit?actor={key}"):
        answer = client.get(address)
        check(answer, 400, "key-in-url")


def test_other_origins_may_read_nothing(client, keys):
    """CORS is off: a preflight is no invitation, and no answer names an origin."""
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
    asked = client.options("/api/v1/audit", headers=preflight)
    got = client.get("/api/v1/audit", headers=bearer(keys["admin"]) | preflight)
    for answer in (asked, got):
        assert [name for name in answer.headers if name.startswith("access-control")] == []
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert asked.status_code in (401, 405)


def test_a_viewer_is_slowed_down_and_a_trainer_is_not(settings, clock, database, keys):
    rates = Rates(requests=Rate(num=2, per_s=1))
    limited = create_app(settings.model_copy(update={"rates": rates}), clock, database)
    client = TestClient(limited, BASE_URL)
    for role, last in (("viewer", 429), ("annotator", 429), ("service", 200), ("admin", 200)):
        statuses = [
            client.get("/api/v1/questions", headers=bearer(keys[role])).status_code
            for _ in range(3)
        ]
        assert statuses == [200, 200, last], role
