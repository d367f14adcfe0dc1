"""What the label service's tests share: a fresh database of each kind."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.labels.app import create_app
from services.labels.settings import NO_RATES, Settings
from services.labels.store.database import Database
from services.web.keys import ROLES
from tests.labels.caller import Api
from tests.labels.labelling_cases import World, world
from tests.labels.people import BASE_URL, SettableClock, make_key
from tests.labels.postgresql import create_database, empty_database, find_binaries, run_server
from tests.labels.webhook_receiver import Receiver
from tests.serving import served

ONE_KIND = os.environ.get("TDMR1_TEST_DATABASE", "sqlite")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every table and no row: copying it is faster than making it."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server that lives as long as the tests."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    with run_server(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_tables(postgresql_server: str) -> str:
    """The URL of a database with every table; tests use it in turn, for making one is slow."""
    url = create_database(postgresql_server, "labels")
    Database.open(url).close()
    return url


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with empty tables: for what only SQLite has."""
    path = tmp_path / "labels.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql_tables: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with empty tables."""
    yield postgresql_tables
    empty_database(postgresql_tables)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with empty tables; the test runs on each kind."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def one_database_url(request: pytest.FixtureRequest) -> str:
    """The same of one kind, for what is slow and hardly asks the database: SQLite, and PostgreSQL
    in `make test-postgresql`."""
    return request.getfixturevalue(f"{ONE_KIND}_url")


@pytest.fixture(scope="module")
def shared_database_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same for a module's tests together."""
    if ONE_KIND == "postgresql":
        url = request.getfixturevalue("postgresql_tables")
        yield url
        empty_database(url)
    else:
        path = tmp_path_factory.mktemp("shared") / "labels.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """That database, open."""
    opened = Database.open(database_url)
    yield opened
    opened.close()


@pytest.fixture(
    params=[
        pytest.param("sqlite", marks=pytest.mark.unit),
        pytest.param("postgresql", marks=pytest.mark.integration),
    ]
)
def world_url(request: pytest.FixtureRequest) -> str | None:
    """Where worlds are: in memory, or in a PostgreSQL database that they leave as it was."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgresql_tables")


@pytest.fixture
def here(world_url: str | None) -> Iterator[World]:
    """A world; the test runs on each kind of database."""
    with world(url=world_url) as made:
        yield made


@pytest.fixture
def clock() -> SettableClock:
    """The app's clock."""
    return SettableClock()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """What the app is made with: no limits, since the clock stands still, and nothing left to
    chance; a test that needs others overrides this fixture."""
    data_dir = tmp_path / "data"
    return Settings(data_dir=data_dir, database_url=database_url, gold_rate=0, rates=NO_RATES)


@pytest.fixture
def app(settings: Settings, clock: SettableClock, database: Database) -> FastAPI:
    """The label service over `database`."""
    return create_app(settings, clock, database)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Asks `app` without a network: httpx's client, `headers=bearer(keys["service"])`."""
    with TestClient(app, BASE_URL, client=("127.0.0.1", 50000)) as opened:
        yield opened


@pytest.fixture
def keys(database: Database, clock: SettableClock) -> dict[str, str]:
    """The text of a key of each role; the annotator's labels as a person named Ann."""
    return {role: make_key(database, role, clock()) for role in ROLES}


@pytest.fixture
def live_server(app: FastAPI) -> Iterator[str]:
    """`app` behind a real uvicorn, in a thread: its address, without a / at the end."""
    with served(app) as url:
        yield url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A server that webhooks may point at."""
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def api(
    client: TestClient,
    keys: dict[str, str],
    database: Database,
    clock: SettableClock,
    app: FastAPI,
) -> Api:
    """The service with a question, and people and apps who call it."""
    return Api(client, keys, database, clock, app)
