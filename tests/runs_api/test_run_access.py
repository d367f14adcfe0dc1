"""Deny by default: the walk over every route of the run-side API."""

import re

import pytest
from fastapi.routing import APIRoute

from services.runs_api.app import API, API_ROUTERS
from services.web.keys import ROLES
from tests.runs_api.people import BASE_URL, bearer

pytestmark = pytest.mark.integration

WATCHER = {"viewer", "service", "admin"}
ALLOWED = {
    "GET /runs": WATCHER,
    "GET /runs/{run_id}": WATCHER,
    "GET /runs/{run_id}/workers": WATCHER,
    "GET /runs/{run_id}/checkpoints": WATCHER,
    "PUT /runs/{run_id}/promoted": {"admin"},
    "GET /runs/{run_id}/evaluations": WATCHER,
    "GET /runs/{run_id}/evaluations/{label}": WATCHER,
    "GET /runs/{run_id}/alerts": WATCHER,
    "GET /alerts": WATCHER,
    "GET /runs/{run_id}/metrics": WATCHER,
    "GET /runs/{run_id}/histogram": WATCHER,
    "GET /runs/{run_id}/groups": WATCHER,
    "GET /runs/{run_id}/groups/{group_id}": WATCHER,
    "GET /runs/{run_id}/groups/{group_id}/history": WATCHER,
    "GET /runs/{run_id}/human-agreement": WATCHER,
    "GET /runs/{run_id}/images/{sha256}": WATCHER,
    "POST /runs/{run_id}/commands": {"admin"},
    "GET /runs/{run_id}/commands": WATCHER,
    "GET /runs/{run_id}/commands/{command_id}": WATCHER,
    "POST /runs/{run_id}/checkpoints/{name}/exports": {"admin"},
    "POST /runs/{run_id}/checkpoints/{name}/samples": {"admin"},
    "GET /runs/{run_id}/jobs": WATCHER,
    "GET /runs/{run_id}/jobs/{job_id}": WATCHER,
    "GET /runs/{run_id}/events": WATCHER,
}
"""A route that is missing here fails: write down who may call it, then think again."""
CALLS = sorted(
    (method, route.path)
    for router in API_ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
)


def status_of(client, method, path, headers):
    # An address of nothing: who may not ask hears 403 and not whether it is there.
    address = API + re.sub(r"\{\w+\}", "none", path)
    body = {"json": {}} if method == "POST" else {}
    return client.request(method, address, headers=headers, **body).status_code


def test_the_table_names_every_operation_and_no_other():
    assert {f"{method} {path}" for method, path in CALLS} == set(ALLOWED)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nobody"}], ids=["none", "wrong"])
def test_strangers_are_turned_away_everywhere(client, headers):
    for method, path in CALLS:
        assert status_of(client, method, path, headers) == 401, path


@pytest.mark.parametrize("role", ROLES)
def test_a_key_does_what_the_table_says_and_nothing_else(client, role):
    for method, path in CALLS:
        status = status_of(client, method, path, bearer(role))
        assert (status != 403) == (role in ALLOWED[f"{method} {path}"]), (method, path, status)
        assert status < 500, (path, status)


def test_a_cookie_of_the_label_service_opens_nothing_here(client):
    client.cookies.set("tdmr1_session", "admin")
    assert client.get(f"{API}/runs").status_code == 401


def test_a_foreign_name_of_this_host_is_not_answered(client):
    answer = client.get(f"{API}/runs", headers=bearer("admin", Host="evil.example:8322"))
    assert answer.json()["code"] == "host-not-allowed"


def test_health_is_open_and_tells_nothing(client, settings):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").status_code == 200
    settings.runs.rmdir()
    assert client.get("/readyz").status_code == 503
    answer = client.get(f"{API}/runs", headers=bearer("viewer"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


def test_answers_carry_the_headers_that_keep_browsers_strict(client):
    headers = client.get(f"{API}/runs", headers=bearer("viewer")).headers
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-frame-options"] == "DENY"
    assert BASE_URL not in str(headers)
