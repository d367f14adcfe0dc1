"""What every request asks of the database is found by an index, however many rows there are."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event

from services.labels.habit_watch import look
from services.labels.settings import NO_RATES, Settings
from services.labels.sweeping import fit_priors, sweep_once
from tests.labels.caller import Api

pytestmark = pytest.mark.integration

GROWING = (
    "annotators|assignments|audit|deliveries|events|group_images|groups|idempotency|images|labels|"
    "label_revisions|reward_messages"
)
"""Tables that grow with the work that is done; of the others there are few rows."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(tmp_path: Any, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", database_url=database_url, gold_rate=0.5, rates=NO_RATES
    )


@pytest.fixture
def asked() -> Iterator[dict[str, Any]]:
    """Every statement that SQLite is asked, with parameters of one time."""
    statements: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements[statement] = values

    event.listen(Engine, "before_cursor_execute", note)
    yield statements
    event.remove(Engine, "before_cursor_execute", note)


def scans(statements: dict[str, Any], path: str) -> list[str]:
    """Statements that look through a whole table that grows; one that reads it in an order that it
    has, and stops at its limit, does not."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in statements.items():
            if not re.match("(with|select|insert|update|delete)", statement.strip().lower()):
                continue
            one = values[0] if isinstance(values, list) else values
            plan = [row[-1] for row in connection.execute(f"explain query plan {statement}", one)]
            stops = " limit " in statement.lower() and "TEMP B-TREE" not in str(plan)
            if not stops and any(re.match(f"SCAN ({GROWING})\\b", step) for step in plan):
                found.append(f"{plan}: {' '.join(statement.split())}")
    return found


def test_requests_look_nothing_up_by_reading_a_whole_table(
    api: Api, asked: dict[str, Any], database_url: str
) -> None:
    groups = [api.group(f"g{n}", overlap=2) for n in range(4)]
    asked.clear()
    api.group("next")
    image = groups[0]["images"][0]
    label = {"image_id": image["image_id"], "value": "like", "annotator_ref": "u"}
    assert api("app", "POST", "/labels", label).status_code == 201
    assert api("app", "POST", "/labels:batch", {"labels": [label]}).status_code == 200
    lease = api.claim("bob").json()
    assert api("bob", "GET", f"/images/{image['sha256']}").status_code in (200, 404)
    assert api.submit(lease, "bob", "like", "dislike").status_code == 201
    for n in range(3):
        lease = api.claim("cem").json()
        values = ("like", "like" if n else "dislike")
        assert api.submit(lease, "cem", *values).status_code == 201
    receive = {"max_groups": 4, "visibility_seconds": 60, "wait_seconds": 0}
    for body in (receive, receive | {"run_id": "run"}):
        got = api("service", "POST", "/reward-queue:receive", body).json()["messages"]
        receipts = {"receipts": [message["receipt"] for message in got] or ["none"]}
        assert api("service", "POST", "/reward-queue:ack", receipts).status_code == 200
    for path in (
        "/labels",
        "/groups",
        "/groups?run_id=run",
        "/diagnosis",
        "/diagnosis?run_id=run",
        "/audit",
        "/audit?run_id=run",
    ):
        assert api("admin", "GET", path).status_code == 200
    found = scans(asked, database_url.removeprefix("sqlite:///"))
    assert not found, "\n".join(found)


def test_what_is_done_every_second_reads_no_whole_table(
    api: Api, asked: dict[str, Any], database_url: str
) -> None:
    api.group("g")
    portal = api.client.portal
    assert portal is not None
    asked.clear()
    for task in (sweep_once, fit_priors, partial(look, seen=0)):
        portal.call(task, api.app)
    found = scans(asked, database_url.removeprefix("sqlite:///"))
    assert not found, "\n".join(found)
