"""What admins do with people, and that the audit log knows."""

from datetime import datetime, timedelta, timezone

import pytest

from services.web.auth import COOKIE
from services.web.pagination import encode_cursor
from tests.labels.people import bearer, log_in

pytestmark = pytest.mark.integration


@pytest.fixture
def admin(keys) -> dict[str, str]:
    return bearer(keys["admin"])


def person(client, admin):
    """Id and address of the only person but Ann."""
    items = client.get("/api/v1/annotators", headers=admin).json()["items"]
    (found,) = [item for item in items if item["name"] != "Ann"]
    return found["annotator_id"], f"/api/v1/annotators/{found['annotator_id']}"


def test_the_excluded_are_out_at_once_and_can_be_let_in_again(client, keys, admin):
    log_in(client, keys["admin"])
    cookie = client.cookies.pop(COOKIE)
    _, address = person(client, admin)
    read = client.get(address, headers=admin).headers["etag"]
    excluded = client.post(f"{address}:exclude", headers=admin | {"If-Match": read})
    assert excluded.json()["state"] == "excluded"
    assert client.post(f"{address}:exclude", headers=admin).status_code == 200
    for verb in ("exclude", "include"):
        stale = client.post(f"{address}:{verb}", headers=admin | {"If-Match": read})
        assert (stale.status_code, stale.json()["code"]) == (412, "etag-mismatch")
    theirs = {"Cookie": f"{COOKIE}={cookie}"}
    assert client.get("/api/v1/session", headers=theirs).status_code == 401
    body = {"role": "annotator"}
    fresh = admin | {"Idempotency-Key": "x"}
    assert client.post(f"{address}/invites", json=body, headers=fresh).status_code == 409
    assert client.post(f"{address}:include", headers=admin).json()["state"] == "active"
    assert client.post(f"{address}/invites", json=body, headers=fresh).status_code == 201


def test_a_key_of_somebody_excluded_opens_nothing(client, keys, admin):
    mine = bearer(keys["annotator"])
    assert client.get("/api/v1/session", headers=mine).status_code == 404
    (ann,) = client.get("/api/v1/annotators", headers=admin).json()["items"]
    client.post(f"/api/v1/annotators/{ann['annotator_id']}:exclude", headers=admin)
    answer = client.get("/api/v1/session", headers=mine)
    assert (answer.status_code, answer.json()["code"]) == (403, "annotator-excluded")


def test_an_identity_is_erased_for_good_and_only_by_who_has_read_it(client, keys, admin):
    log_in(client, keys["admin"])
    cookie = client.cookies.pop(COOKIE)
    _, address = person(client, admin)
    assert client.post(f"{address}:erase-identity", headers=admin).status_code == 428
    etag = client.get(address, headers=admin).headers["etag"]
    erased = client.post(f"{address}:erase-identity", headers=admin | {"If-Match": etag})
    assert (erased.json()["name"], erased.json()["state"]) == ("erased", "erased")
    assert client.post(f"{address}:include", headers=admin).status_code == 409
    theirs = {"Cookie": f"{COOKIE}={cookie}"}
    assert client.get("/api/v1/session", headers=theirs).status_code == 401


def test_every_change_is_in_the_audit_log_without_names_or_addresses(client, keys, admin):
    log_in(client, keys["admin"])
    client.cookies.clear()
    identity, address = person(client, admin)
    client.post(f"{address}:exclude", headers=admin)
    log = client.get("/api/v1/audit", headers=admin)
    actions = [entry["action"] for entry in log.json()["items"]]
    assert actions[:4] == [
        "annotator.exclude",
        "session.start",
        "invite.create",
        "annotator.create",
    ]
    assert "Bob" not in log.text
    assert "127.0.0.1" not in log.text
    only = {"object": identity, "action": "annotator.exclude"}
    (entry,) = client.get("/api/v1/audit", headers=admin, params=only).json()["items"]
    assert len(entry["ip_sha256"]) == 64


def test_pages_have_no_gap_and_no_repeat_while_rows_arrive(client, admin, clock):
    def add(name):
        clock.advance(1)
        headers = admin | {"Idempotency-Key": name}
        client.post("/api/v1/annotators", json={"name": name}, headers=headers)

    for n in range(5):
        add(f"a{n}")
    address, names = "/api/v1/annotators?limit=2", []
    while address:
        page = client.get(address, headers=admin)
        names += [item["name"] for item in page.json()["items"]]
        address = page.links.get("next", {}).get("url")
        add(f"later{len(names)}")
    assert names == ["a4", "a3", "a2", "a1", "a0", "Ann"]
    counted = client.get("/api/v1/annotators?count=true&limit=1", headers=admin).json()
    assert counted["total"] == 9


FIRST_DAY = encode_cursor(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "a")
"""A time that no calendar of UTC has."""


@pytest.mark.parametrize(
    "cursor", ["x", "WzEsMl0=", "bnVsbA==", "WyIyMDI2LTAxLTAxIiwiYSJd", FIRST_DAY]
)
def test_a_cursor_of_somebodys_own_making_is_refused(client, admin, cursor):
    answer = client.get(f"/api/v1/annotators?cursor={cursor}", headers=admin)
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")
