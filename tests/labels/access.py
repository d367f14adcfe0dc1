"""Who may call what: the table that the app is held to, and how a test tries it.

A route that is missing here fails `test_access.py`: write down who may call it, then think again.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from services.labels.app import API, API_ROUTERS

ADMIN = {"admin"}
EVERYBODY = {"viewer", "annotator", "service", "admin"}
TRAINER = {"service", "admin"}
WATCHER = {"viewer", "service", "admin"}
PEOPLE = {"annotator", "admin"}
LABEL_OWNERS = {"annotator", "service", "admin"}
PUSHERS = {"service", "admin", "annotator+labels:push"}

ALLOWED: dict[str, set[str]] = {
    "GET /aggregates/{group_id}": WATCHER,
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
    "POST /assignments": PEOPLE,
    "POST /assignments/{assignment_id}/heartbeat": PEOPLE,
    "POST /assignments/{assignment_id}/labels": PEOPLE,
    "DELETE /assignments/{assignment_id}": PEOPLE,
    "POST /assignments/{assignment_id}:revoke": ADMIN,
    "GET /audit": ADMIN,
    "GET /diagnosis": ADMIN,
    "GET /events": EVERYBODY,
    "POST /exports": ADMIN,
    "GET /exports": ADMIN,
    "GET /exports/{export_id}": ADMIN,
    "GET /exports/{export_id}/file": ADMIN,
    "PUT /gold/{group_id}": ADMIN,
    "GET /gold": ADMIN,
    "GET /gold/{group_id}": ADMIN,
    "DELETE /gold/{group_id}": ADMIN,
    "PUT /groups/{group_id}": TRAINER,
    "GET /groups": WATCHER,
    "GET /groups/{group_id}": WATCHER,
    "PUT /images/{sha256}": TRAINER,
    "GET /images/{sha256}": EVERYBODY,
    "DELETE /images/{sha256}": ADMIN,
    "PUT /images/{sha256}/pin": TRAINER,
    "DELETE /images/{sha256}/pin": TRAINER,
    "POST /labels": PUSHERS,
    "POST /labels:batch": PUSHERS,
    "GET /labels": LABEL_OWNERS,
    "GET /labels/{label_id}": LABEL_OWNERS,
    "PATCH /labels/{label_id}": LABEL_OWNERS,
    "DELETE /labels/{label_id}": LABEL_OWNERS,
    "POST /questions": ADMIN,
    "GET /questions": EVERYBODY,
    "GET /questions/{question_id}": EVERYBODY,
    "PATCH /questions/{question_id}": ADMIN,
    "DELETE /questions/{question_id}": ADMIN,
    "POST /reward-queue:receive": TRAINER,
    "POST /reward-queue:ack": TRAINER,
    "POST /reward-queue:nack": TRAINER,
    "POST /reward-queue:extend": TRAINER,
    "GET /reward-queue": ADMIN,
    "POST /reward-queue/dead-letters:redrive": ADMIN,
    "GET /session": EVERYBODY,
    "DELETE /session": EVERYBODY,
    "GET /statistics": WATCHER,
    "POST /webhooks": ADMIN,
    "GET /webhooks": ADMIN,
    "GET /webhooks/{webhook_id}": ADMIN,
    "PATCH /webhooks/{webhook_id}": ADMIN,
    "DELETE /webhooks/{webhook_id}": ADMIN,
    "GET /webhooks/{webhook_id}/deliveries": ADMIN,
    "POST /webhooks/{webhook_id}:test": ADMIN,
    "POST /webhooks/{webhook_id}:replay": ADMIN,
}
"""Who may call an operation under /api/v1: roles, and `role+scope` for keys that have the scope."""

OPEN = {"POST /session"}
"""What a stranger may call."""

EXAMPLES = {"sha256": "0" * 64}
UNKNOWN_ID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


class Call(NamedTuple):
    """One operation, ready to be tried on things that do not exist."""

    name: str
    method: str
    address: str


def all_calls() -> list[Call]:
    """Every operation of the API, in its schema or not."""
    calls = []
    for route in (route for router in API_ROUTERS for route in router.routes):
        assert isinstance(route, APIRoute)
        names = re.findall(r"{(\w+)", route.path)
        address = API + re.sub(r":path}", "}", route.path)
        values = {name: EXAMPLES.get(name, UNKNOWN_ID) for name in names}
        for method in sorted(route.methods or ()):
            calls.append(Call(f"{method} {route.path}", method, address.format(**values)))
    return calls


def status_of(client: TestClient, call: Call, headers: Mapping[str, str]) -> int:
    """What a call with an empty body is answered; a stream is left after its head."""
    asked = client.stream(call.method, call.address, json={}, headers=dict(headers))
    with asked as answer:
        return answer.status_code
