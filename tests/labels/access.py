"""Who may call what: the table that the app is held to, and how a test tries it.

A route that is missing here fails `test_access.py`: write down who may call it, then think again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.testclient import TestClient

ADMIN = {"admin"}
EVERYBODY = {"viewer", "annotator", "service", "admin"}

ALLOWED: dict[str, set[str]] = {
    "POST /annotators": ADMIN,
    "GET /annotators": ADMIN,
    "GET /annotators/{annotator_id}": ADMIN,
    "POST /annotators/{annotator_id}:exclude": ADMIN,
    "POST /annotators/{annotator_id}:include": ADMIN,
    "POST /annotators/{annotator_id}:erase-identity": ADMIN,
    "POST /annotators/{annotator_id}/invites": ADMIN,
    "POST /api-keys": ADMIN,
    "GET /api-keys": ADMIN,
    "GET /api-keys/{key_id}": ADMIN,
    "DELETE /api-keys/{key_id}": ADMIN,
    "GET /audit": ADMIN,
    "GET /session": EVERYBODY,
    "DELETE /session": EVERYBODY,
}
"""Roles by operation, under /api/v1; a scope is a role with a key that has it (`role+scope`)."""

OPEN = {"POST /session"}
"""What a stranger may call."""

EXAMPLES = {"sha256": "0" * 64}
UNKNOWN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class Call(NamedTuple):
    """One operation, ready to be tried on things that do not exist."""

    name: str
    method: str
    address: str


def calls_of(app: FastAPI) -> list[Call]:
    """Every operation under /api/v1."""
    calls = []
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            names = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            values = {name: EXAMPLES.get(name, UNKNOWN_ID) for name in names}
            name = f"{method.upper()} {path.removeprefix('/api/v1')}"
            calls.append(Call(name, method.upper(), path.format(**values)))
    return calls


def check_private(
    client: TestClient,
    owner: Mapping[str, str],
    strangers: Iterable[Mapping[str, str]],
    method: str,
    address: str,
    json: Any = None,
) -> None:
    """Only `owner` (headers) knows of the object there: strangers are told 404, as for nothing.
    The strangers ask first, so that a change by one of them would show."""
    for headers in strangers:
        answer = client.request(method, address, json=json, headers=dict(headers))
        assert answer.status_code == 404, (method, address, answer.status_code, answer.text)
    answer = client.request(method, address, json=json, headers=dict(owner))
    assert answer.status_code < 400, (method, address, answer.status_code, answer.text)
