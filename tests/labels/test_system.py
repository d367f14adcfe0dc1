"""Health, metrics, and what every answer has."""

import pytest

from tests.labels.people import bearer

pytestmark = pytest.mark.integration


def test_health_and_readiness_are_open(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_an_unknown_route_is_a_problem_with_the_request_id_that_was_sent(client, keys):
    answer = client.get("/nowhere", headers={"X-Request-Id": "mine-1"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "mine-1"
    problem = answer.json()
    assert (problem["type"], problem["request_id"]) == ("/problems/not-found", "mine-1")
    assert client.get("/api/v1/nowhere").status_code == 401
    assert client.get("/api/v1/nowhere", headers=bearer(keys["viewer"])).status_code == 404
