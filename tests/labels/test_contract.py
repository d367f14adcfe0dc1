"""Schemathesis on the whole app: requests that the schema allows, and ones that it does not."""

import json
from collections.abc import Iterator

import pytest

from services.labels.app import create_app
from services.labels.settings import NO_RATES, Settings
from services.labels.store.database import Database
from tests.labels import write_openapi
from tests.labels.contract import check_operation, schema_of
from tests.labels.people import SettableClock, bearer, make_annotator, make_key

pytestmark = pytest.mark.integration

OPERATIONS = [
    (path, method)
    for path, methods in json.loads(write_openapi.LABELS.read_text())["paths"].items()
    for method in methods
    # The stream never ends, and an admin who has logged out is a stranger.
    if path != "/api/v1/events"
]
EXAMPLES = 5


@pytest.fixture(scope="module")
def database(shared_database_url) -> Iterator[Database]:
    opened = Database.open(shared_database_url)
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
    return schema_of(app)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_app_keeps_its_contract(api, admin, path, method):
    def wait_for_nobody(case):
        if isinstance(case.body, dict) and is_wait(case.body.get("wait_seconds")):
            case.body["wait_seconds"] = 0

    check_operation(api[path][method], admin, EXAMPLES, wait_for_nobody)


def is_wait(value):
    return type(value) in (int, float) and 0 <= value <= 20
