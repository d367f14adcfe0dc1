"""What the label service's tests share: a fresh database of each kind."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, make_url, text

from services.labels.app import create_app
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.web.keys import ROLES
from tests.labels.people import BASE_URL, SettableClock, make_key
from tests.labels.postgresql import find_binaries, run_server

NUMBERS = count()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with every table and no row: copying it is faster than making it."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server that lives as long as the tests, with a database `template`."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    with run_server(binaries) as url:
        _administer(url, "create database template")
        Database.open(_url_of(url, "template")).close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with empty tables; the test runs on each kind."""
    if request.param == "sqlite":
        path = tmp_path / "labels.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgresql_server")
    name = f"test_{next(NUMBERS)}"
    _administer(server, f"create database {name} template template")
    yield _url_of(server, name)
    _administer(server, f"drop database {name} with (force)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """That database, open."""
    opened = Database.open(database_url)
    yield opened
    opened.close()


def _url_of(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _administer(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def clock() -> SettableClock:
    """The app's clock."""
    return SettableClock()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """What the app is made with; a test that needs others overrides this fixture."""
    return Settings(data_dir=tmp_path / "data", database_url=database_url)


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
