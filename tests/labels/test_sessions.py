"""Browser sessions as an attacker meets them: links, cookies, foreign pages, and time."""

import pytest
from fastapi.testclient import TestClient

from services.labels.app import create_app
from services.labels.settings import Rates
from services.web.auth import COOKIE
from tests.labels.people import BASE_URL, bearer, invite, log_in

pytestmark = pytest.mark.integration

ORIGIN = {"Origin": BASE_URL}


def test_an_invite_starts_one_session_and_never_a_second(client, keys):
    link = invite(client, keys["admin"])
    first = client.post("/api/v1/session", json={"invite": link}, headers=ORIGIN)
    assert first.status_code == 201
    cookie = first.headers["set-cookie"].lower()
    assert f"{COOKIE}=tdmr1s_" in cookie
    assert all(word in cookie for word in ("httponly", "samesite=lax", "path=/"))
    assert "secure" not in cookie  # plain http on loopback; the next test has https
    client.cookies.clear()
    again = client.post("/api/v1/session", json={"invite": link}, headers=ORIGIN)
    assert (again.status_code, again.json()["code"]) == (401, "invite-invalid")


def test_the_cookie_is_secure_where_the_service_is_reached_by_https(client, keys):
    link = invite(client, keys["admin"])
    answer = client.post(
        "https://127.0.0.1:8321/api/v1/session",
        json={"invite": link},
        headers={"Origin": "https://127.0.0.1:8321"},
    )
    assert "secure" in answer.headers["set-cookie"].lower()


def test_an_invite_expires(client, keys, clock):
    link = invite(client, keys["admin"])
    clock.advance(7 * 86400)
    assert client.post("/api/v1/session", json={"invite": link}).status_code == 401


def test_logging_in_again_ends_the_session_that_the_browser_had(client, keys):
    log_in(client, keys["admin"])
    planted = client.cookies[COOKIE]
    log_in(client, keys["admin"])
    assert client.cookies[COOKIE] != planted
    assert client.get("/api/v1/session").status_code == 200
    client.cookies.clear()
    stolen = client.get("/api/v1/session", headers={"Cookie": f"{COOKIE}={planted}"})
    assert stolen.status_code == 401


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(client, keys, clock):
    log_in(client, keys["admin"])
    clock.advance(12 * 3600)
    assert client.get("/api/v1/session").status_code == 401
    log_in(client, keys["admin"])
    for _ in range(17):  # 17 x 10 h: always in use, and past seven days at the end
        clock.advance(10 * 3600)
        seen = client.get("/api/v1/session").status_code
    assert seen == 401


def test_a_session_that_is_logged_out_is_over(client, keys):
    csrf = log_in(client, keys["admin"])
    cookie = client.cookies[COOKIE]
    headers = ORIGIN | {"X-CSRF-Token": csrf}
    assert client.delete("/api/v1/session", headers=headers).status_code == 204
    assert COOKIE not in client.cookies
    stolen = client.get("/api/v1/session", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert stolen.status_code == 401


def test_a_foreign_page_cannot_act_with_the_cookie(client, keys):
    csrf = log_in(client, keys["admin"], role="admin")
    attacks = {
        "no token": (ORIGIN, "csrf"),
        "wrong token": (ORIGIN | {"X-CSRF-Token": csrf[:-1] + "!"}, "csrf"),
        "no origin": ({"X-CSRF-Token": csrf}, "origin-not-allowed"),
        "foreign origin": (
            {"Origin": "http://evil.example", "X-CSRF-Token": csrf},
            "origin-not-allowed",
        ),
        "opaque origin": ({"Origin": "null", "X-CSRF-Token": csrf}, "origin-not-allowed"),
        "other port": (
            {"Origin": "http://127.0.0.1:1", "X-CSRF-Token": csrf},
            "origin-not-allowed",
        ),
    }
    for name, (headers, code) in attacks.items():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = client.request(method, "/api/v1/annotators/x", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, code), (name, method)
    mine = ORIGIN | {"X-CSRF-Token": csrf}
    assert client.post("/api/v1/annotators/x:include", headers=mine).status_code == 404


def test_a_foreign_page_cannot_log_a_browser_in(client, keys):
    link = invite(client, keys["admin"])
    foreign = {"Origin": "http://evil.example"}
    answer = client.post("/api/v1/session", json={"invite": link}, headers=foreign)
    assert answer.json()["code"] == "origin-not-allowed"
    assert client.post("/api/v1/session", json={"invite": link}).status_code == 201


def test_guessing_invites_is_slowed_down(settings, clock, database):
    limited = create_app(settings.model_copy(update={"rates": Rates()}), clock, database)
    client = TestClient(limited, BASE_URL)
    guesses = [
        client.post("/api/v1/session", json={"invite": f"tdmr1i_{n}"}).status_code for n in range(6)
    ]
    assert guesses == [401] * 5 + [429]
    clock.advance(12)
    assert client.post("/api/v1/session", json={"invite": "x"}).status_code == 401


def test_a_key_has_no_session(client, keys):
    assert client.get("/api/v1/session", headers=bearer(keys["viewer"])).status_code == 404
