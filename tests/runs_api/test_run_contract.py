"""Schemathesis on the run-side API: requests that its schema allows, and ones that it does not."""

import json

import pytest

from services.runs_api.app import create_app
from services.runs_api.settings import Settings
from tests.labels import write_openapi
from tests.labels.contract import check_operation, schema_of
from tests.runs_api.people import Keys, bearer

pytestmark = pytest.mark.integration

OPERATIONS = [
    (path, method)
    for path, methods in json.loads(write_openapi.RUNS.read_text())["paths"].items()
    for method in methods
    if not path.endswith("/events")  # The stream never ends.
]
EXAMPLES = 6


@pytest.fixture(scope="module")
def api(trained, tmp_path_factory):
    found = Settings(
        runs=trained.path.parent,
        cache=tmp_path_factory.mktemp("cache"),
        allowed_hosts=("testserver", "localhost", "127.0.0.1"),
    )
    return schema_of(create_app(found, Keys(("admin",))))


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_run_side_api_keeps_its_contract(api, trained, path, method):
    def ask_about_the_run(case):
        if "run_id" in (case.path_parameters or {}):
            case.path_parameters["run_id"] = trained.id  # or every question would be of no run

    check_operation(api[path][method], bearer("admin"), EXAMPLES, ask_about_the_run)
