"""Schemathesis on the run-side API: requests that its schema allows, and ones that it does not."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from services.runs_api.app import create_app
from services.runs_api.settings import Settings
from tests.labels import write_openapi
from tests.labels.test_contract import CONFIG
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
    app = create_app(found, Keys(("admin",)))
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=CONFIG)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_run_side_api_keeps_its_contract(api, trained, path, method):
    operation = api[path][method]

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    def ask(case):
        if "run_id" in (case.path_parameters or {}):
            case.path_parameters["run_id"] = trained.id  # or every question would be of no run
        case.call_and_validate(headers=bearer("admin"), excluded_checks=[positive_data_acceptance])

    ask()
