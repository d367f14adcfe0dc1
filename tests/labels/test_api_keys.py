"""Keys over HTTP: an admin makes, sees and ends them."""

import pytest

from tests.labels.people import bearer

pytestmark = pytest.mark.integration


def test_an_admin_makes_a_key_that_works_until_it_is_revoked(client, keys):
    admin = bearer(keys["admin"])
    made = client.post(
        "/api/v1/api-keys",
        json={"name": "second", "role": "admin"},
        headers=admin | {"Idempotency-Key": "a"},
    )
    assert made.status_code == 201
    second = bearer(made.json()["key"])
    address = made.headers["location"]
    seen = client.get(address, headers=second)
    assert seen.json()["name"] == "second"
    assert client.delete(address, headers=admin).status_code == 428
    assert client.delete(address, headers=admin | {"If-Match": '"r7"'}).status_code == 412
    etag = seen.headers["etag"]
    assert client.get(address, headers=admin | {"If-None-Match": etag}).status_code == 304
    assert client.delete(address, headers=admin | {"If-Match": etag}).status_code == 204
    assert client.get(address, headers=second).status_code == 401


def test_a_repeated_post_makes_one_key_and_tells_its_secret_once(client, keys):
    headers = bearer(keys["admin"], Idempotency_Key="a")
    ask = {"name": "trainer", "role": "service"}
    first, again = (client.post("/api/v1/api-keys", json=ask, headers=headers) for _ in range(2))
    assert first.json()["key"].startswith("tdmr1_")
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert again.json() == first.json() | {"key": None}
    other = client.post("/api/v1/api-keys", json=ask | {"name": "x"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
