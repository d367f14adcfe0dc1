"""Schemathesis on the whole app: requests that the schema allows, and ones that it does not."""

import json
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

from services.labels.app import create_app
from services.labels.settings import NO_RATES, Settings
from services.labels.store.database import Database
from tests.labels import write_openapi
from tests.labels.people import SettableClock, bearer, make_annotator, make_key

pytestmark = pytest.mark.integration

CONFIG = SchemathesisConfig(
    seed=1,
    projects=ProjectsConfig(
        default=ProjectConfig(
            generation=GenerationConfig(deterministic=True, with_security_parameters=False)
        )
    ),
)


OPERATIONS = [
    (path, method)
    for path, methods in json.loads(write_openapi.LABELS.read_text())["paths"].items()
    for method in methods
    # The stream never ends, and an admin who has logged out is a stranger.
    if path != "/api/v1/events"
]
EXAMPLES = 5
"""Requests an operation; not every one that is well-formed can succeed, since only the database
knows ids, cursors and digests, so that check is left out."""


@pytest.fixture(scope="module")
def database(sqlite_template, tmp_path_factory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("contract") / "labels.db"
    path.write_bytes(sqlite_template.read_bytes())
    opened = Database.open(f"sqlite:///{path}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def admin(database) -> dict[str, str]:
    now = SettableClock()()
    person = make_annotator(database, "Ann", now)
    return bearer(make_key(database, "admin", now, annotator_id=person))


@pytest.fixture(scope="module")
def api(database, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    hosts = ("testserver", "localhost", "127.0.0.1")
    found = Settings(data_dir=data, rates=NO_RATES, allowed_hosts=hosts)
    app = create_app(found, SettableClock(), database)
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=CONFIG)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_app_keeps_its_contract(api, admin, path, method):
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
        if isinstance(case.body, dict) and is_wait(case.body.get("wait_seconds")):
            case.body["wait_seconds"] = 0  # Nobody is there to wait for.
        case.call_and_validate(headers=admin, excluded_checks=[positive_data_acceptance])

    ask()


def is_wait(value):
    return type(value) in (int, float) and 0 <= value <= 20
