"""The contract with clients: docs/openapi.json is what the app says, and says enough."""

import json
import re
from pathlib import Path

import pytest

from services.labels.app import create_app
from services.labels.settings import Settings
from services.labels.store.database import Database

pytestmark = pytest.mark.integration

COMMITTED = Path(__file__).parents[2] / "docs/openapi.json"
METHODS_THAT_CREATE = {"post"}
NOT_CREATING = re.compile(r":(receive|ack|nack|extend|batch|exclude|include|erase-identity|redrive)")


@pytest.fixture(scope="module")
def document(sqlite_template, tmp_path_factory):
    database = Database.open(f"sqlite:///{sqlite_template}")
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")), database=database)
    yield app.openapi()
    database.close()


@pytest.fixture(scope="module")
def operations(document):
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_document_is_what_the_app_says(document):
    """If you meant to change it: `make openapi`, and say in the commit what clients will notice."""
    assert json.loads(COMMITTED.read_text()) == json.loads(json.dumps(document))


def test_operations_have_names_that_stay(document, operations):
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch("[a-z]+(_[a-z]+)+", name)] == []
    assert [name for name, operation in operations if not operation.get("description")] == []


def test_bodies_have_examples_and_nothing_extra(document, operations):
    lacking = []
    for name, operation in operations:
        content = operation.get("requestBody", {}).get("content", {})
        reference = content.get("application/json", {}).get("schema", {}).get("$ref")
        if reference:
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
            has_example = "example" in schema or "examples" in schema
            if not has_example or schema.get("additionalProperties") is not False:
                lacking.append(name)
    assert lacking == []


def test_every_operation_says_who_may_call_it(operations):
    open_to_all = [name for name, operation in operations if not operation.get("security")]
    assert open_to_all == ["POST /api/v1/session"]
