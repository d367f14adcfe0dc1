"""Health, metrics, and what every answer has."""

import pytest
from fastapi.testclient import TestClient

from services.labels.app import create_app
from tests.labels.people import BASE_URL, bearer

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


def test_metrics_are_for_this_machine_or_the_bearer_of_the_scrape_token(app, settings, clock):
    closed = TestClient(app, BASE_URL, client=("192.0.2.7", 1))
    assert closed.get("/metrics").status_code == 401
    proxied = TestClient(app, BASE_URL, client=("127.0.0.1", 1))
    assert proxied.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401
    assert proxied.get("/metrics").status_code == 200
    with_token = settings.model_copy(update={"scrape_token": "s3cret"})
    opened = TestClient(create_app(with_token, clock, app.state.database), BASE_URL)
    assert opened.get("/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert opened.get("/metrics", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_metrics_tell_routes_and_no_ids(client, keys):
    client.get("/api/v1/annotators/01ARZ3NDEKTSV4RRFFQ69G5FAV", headers=bearer(keys["admin"]))
    text = client.get("/metrics").text
    assert 'tdmr1_groups{state="open"} 0.0' in text
    assert "tdmr1_leases_active 0.0" in text
    assert 'tdmr1_gold_answers_total{correct="true"} 0.0' in text
    assert "tdmr1_agreement_alpha" not in text
    assert 'route="/api/v1/annotators/{annotator_id}",status="404"' in text
    assert "01ARZ3" not in text
