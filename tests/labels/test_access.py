"""Deny by default: the walk over every route, by strangers and by every wrong role."""

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from services.labels.app import API, API_ROUTERS, OPEN_ROUTES
from services.web.auth import check_closed
from services.web.keys import ROLES
from tests.labels.access import ALLOWED, OPEN, all_calls, status_of
from tests.labels.people import BASE_URL, bearer, log_in, make_annotator, make_key

pytestmark = pytest.mark.integration


@pytest.fixture
def database_url(one_database_url) -> str:
    """Who may call what does not depend on the database."""
    return one_database_url


def test_the_table_names_every_operation_and_no_other():
    assert {call.name for call in all_calls()} == set(ALLOWED) | OPEN


def test_every_operation_of_the_api_is_in_its_schema():
    routes = [route for router in API_ROUTERS for route in router.routes]
    assert [route.path for route in routes if not route.include_in_schema] == []


def test_strangers_are_turned_away_everywhere(client):
    for call in all_calls():
        if call.name not in OPEN:
            answer = client.request(call.method, call.address, json={})
            assert answer.status_code == 401, call
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("who", [*ROLES, "annotator+labels:push", "service+labels:on_behalf"])
def test_a_key_does_what_the_table_says_and_nothing_else(client, database, clock, who):
    role, _, scope = who.partition("+")
    annotator = make_annotator(database, "Ann", clock()) if role in ("annotator", "admin") else None
    headers = bearer(make_key(database, role, clock(), *scope.split(), annotator_id=annotator))
    for call in all_calls():
        if call.name not in OPEN:
            status = status_of(client, call, headers)
            may = not ALLOWED[call.name].isdisjoint({role, who})
            assert (status != 403) == may, (call, status)
            assert status < 500, (call, status)


@pytest.mark.parametrize("role", ["annotator", "viewer", "admin"])
def test_a_browser_may_what_a_key_of_its_role_may(client, keys, role):
    csrf = log_in(client, keys["admin"], role)
    headers = {"Origin": BASE_URL, "X-CSRF-Token": csrf}
    for call in all_calls():
        if call.name not in OPEN and call.name != "DELETE /session":
            status = status_of(client, call, headers)
            assert (status != 403) == (role in ALLOWED[call.name]), (call, status)


def test_a_route_that_forgets_to_ask_who_it_is_stops_the_start():
    router = APIRouter()

    @router.get("/forgotten")
    async def forgotten():
        return {}

    with pytest.raises(AssertionError, match=r"GET.*forgotten.*lacks require"):
        check_closed(router, API, OPEN_ROUTES)
    assert isinstance(router.routes[0], APIRoute)
