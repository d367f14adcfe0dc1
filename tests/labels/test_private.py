"""One person's things are nothing to another: object by object, and no path leads to a file."""

import pytest

from tests.labels.access import UNKNOWN_ID, all_calls
from tests.labels.caller import Api
from tests.labels.people import bearer, log_in

pytestmark = pytest.mark.integration


TRAVERSALS = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%252f..%252fetc%252fpasswd",
    "....//....//etc/passwd",
    "..\\..\\etc\\passwd",
    "..%5c..%5cetc%5cpasswd",
    "%2fetc%2fpasswd",
    "file:%2f%2f%2fetc%2fpasswd",
    "0" * 64 + "%2f..%2f..%2flabels.db",
    "0" * 64 + "%00.png",
    "..%c0%af..%c0%afetc%c0%afpasswd",
    "labels.db",
    "ip-salt",
    "A" * 5000,
    "0" * 63 + "%0a",
    "\u0660" * 64,
]


def test_strangers_to_an_object_are_told_that_there_is_none(api: Api) -> None:
    """The matrix: every operation on somebody's object, by everybody else who may call it."""
    api.group("g")
    api.group("h")
    done = api.claim("bob").json()
    label = api.submit(done, "bob", "like", "like").json()["labels"][0]
    held = api.claim("bob").json()
    token = {"lease_token": held["lease_token"]}
    image = held["images"][0]
    verdict = {"labels": [{"image_id": image["image_id"], "value": "like"}], "final": False}
    objects = [
        ("GET", f"/labels/{label['id']}", None),
        ("PATCH", f"/labels/{label['id']}", {"value": "dislike"}),
        ("DELETE", f"/labels/{label['id']}", None),
        ("POST", f"/assignments/{held['assignment_id']}/heartbeat", token),
        ("POST", f"/assignments/{held['assignment_id']}/labels", token | verdict),
        ("GET", image["url"].removeprefix("/api/v1"), None),
        ("DELETE", f"/assignments/{held['assignment_id']}", None),
    ]
    for who in ("annotator", "cem", "app", "viewer", "service"):
        for method, path, body in objects:
            status = api(who, method, path, body, If_Match="*").status_code
            sees = path.startswith("/images") and who in ("app", "viewer", "service")
            assert status in ((200,) if sees else (403, 404)), (who, method, path, status)
    for method, path, body in objects:
        assert api("bob", method, path, body, If_Match="*").status_code < 300, (method, path)


def test_a_session_sees_no_more_than_a_key(api: Api) -> None:
    api.group("g")
    lease = api.claim("bob").json()
    label = api.submit(lease, "bob", "like", "like").json()["labels"][0]
    log_in(api.client, api.keys["admin"])
    assert api.client.get(f"/api/v1/labels/{label['id']}").status_code == 404
    assert api.client.get(lease["images"][0]["url"]).status_code == 404
    assert api.client.get("/api/v1/labels").json()["items"] == []


def test_no_path_of_a_callers_making_reaches_a_file(client, keys):
    admin = bearer(keys["admin"])
    gets = [call.address for call in all_calls() if call.method == "GET" and "{" in call.name]
    for traversal in TRAVERSALS:
        for address in [*gets, f"/label/static/{UNKNOWN_ID}"]:
            made = address.replace("0" * 64, traversal).replace(UNKNOWN_ID, traversal)
            answer = client.get(made, headers=admin)
            assert answer.status_code in (400, 404, 422), (made, answer.status_code)
            assert "root:" not in answer.text
            assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_is_written_where_a_caller_says(client, keys, settings):
    folder = settings.data_dir.parent
    before = set(folder.rglob("*"))
    headers = bearer(keys["service"]) | {"Content-Type": "image/png"}
    for traversal in TRAVERSALS:
        answer = client.put(f"/api/v1/images/{traversal}", content=b"x", headers=headers)
        assert answer.status_code in (400, 404, 405, 415, 422), traversal
    assert set(folder.rglob("*")) == before
