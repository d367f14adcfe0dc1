"""The contract with clients: docs/openapi*.json are what the apps say, and say enough."""

import json
import re

import pytest

from tests.labels import write_openapi

pytestmark = pytest.mark.integration


@pytest.fixture(
    scope="module", params=[write_openapi.LABELS, write_openapi.RUNS], ids=["labels", "runs"]
)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def document(path):
    return write_openapi.document(path)


@pytest.fixture(scope="module")
def operations(document):
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_document_is_what_the_app_says(document, path):
    """If you meant to change it: `make openapi`, and say in the commit what clients will notice."""
    assert json.loads(path.read_text()) == json.loads(json.dumps(document))


def test_operations_have_names_that_stay(document, operations):
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch("[a-z]+(_[a-z]+)*", name)] == []
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


def test_every_operation_says_who_may_call_it(operations, path):
    open_to_all = [name for name, operation in operations if not operation.get("security")]
    assert open_to_all == (["POST /api/v1/session"] if path == write_openapi.LABELS else [])


def test_every_error_is_documented_as_a_problem(document, operations):
    for name, operation in operations:
        errors = {status: r for status, r in operation["responses"].items() if int(status) >= 400}
        assert {"401", "422", "429", "503"} <= set(errors), name
        for status, response in errors.items():
            assert response.get("$ref", "").startswith("#/components/responses/"), (name, status)
    for response in document["components"]["responses"].values():
        assert list(response["content"]) == ["application/problem+json"]
