"""What the tests of the run-side API share: a finished run, the app over it, keys."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from services.run_store.run_folder import RunFolder
from services.runs_api.app import create_app
from services.runs_api.settings import Settings
from services.train import train
from services.web.keys import ROLES
from tests.runs_api.people import BASE_URL, Keys
from tests.train_cases import toy_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A toy run of 6 iterations that has finished; not to be changed."""
    runs = tmp_path_factory.mktemp("trained")
    changes = {"images_every": 2, "images_per_group": 4}
    folder = RunFolder(runs / "toy-1")
    train(toy_run(runs, telemetry=changes), folder)
    return folder


@pytest.fixture
def finished(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of that run of one's own."""
    folder = RunFolder(tmp_path / "runs" / trained.id)
    shutil.copytree(trained.path, folder.path)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """What the app is made with."""
    (tmp_path / "runs").mkdir(exist_ok=True)
    return Settings(runs=tmp_path / "runs", cache=tmp_path / "cache")


@pytest.fixture
def keys() -> Keys:
    """A key of each role."""
    return Keys(ROLES)


@pytest.fixture
def app(settings: Settings, keys: Keys) -> FastAPI:
    """The run-side API over `settings.runs`."""
    return create_app(settings, keys)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Asks `app` without a network."""
    with TestClient(app, BASE_URL, client=("127.0.0.1", 50000)) as opened:
        yield opened
