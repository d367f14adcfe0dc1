"""`tdm-r1 dashboard` and `serve --runs`, as somebody types them."""

import os
import signal
import subprocess
import sys

import httpx
import pytest

from tests.labels.live import eventually
from tests.labels.test_serve import call
from tests.runs_api.people import bearer

pytestmark = pytest.mark.integration


def start(*arguments):
    command = [sys.executable, "-m", "services.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def api_of(said):
    """The API's address, from what is said of the dashboard's: it has the link that opens it."""
    return said.partition("login#invite=")[0] + "api/v1/runs"


def key(data, role):
    made = call("keys", "create", "--role", role, "--name", role, "--data", data)
    return made.stdout.strip()


def test_keys_of_the_label_service_open_the_runs_until_they_are_revoked(finished, tmp_path):
    data = tmp_path / "labels"
    viewer = key(data, "viewer")
    with start("dashboard", "--runs", finished.path.parent, "--port", 0, "--data", data) as process:
        try:
            address = api_of(process.stdout.readline().split(" at ")[1])
            ask = lambda: httpx.get(address, headers=bearer(viewer), timeout=30)  # noqa: E731
            (run,) = eventually(lambda: ask().json()["items"])
            assert run["run_id"] == finished.id
            assert httpx.get(address).status_code == 401
            call("keys", "revoke", viewer.split("_")[1], "--data", data)
            assert ask().status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)


def test_serve_starts_the_dashboard_beside_and_takes_it_along(finished, tmp_path):
    data = tmp_path / "labels"
    key(data, "admin")
    options = ("--port", 0, "--dashboard-port", 0, "--data", data)
    with start("serve", "--runs", finished.path.parent, *options) as process:
        try:
            said = dict(process.stdout.readline().split(" at ") for _ in range(2))
            runs = api_of(said["runs"])
            assert httpx.get(runs, timeout=30).status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)
    with pytest.raises(httpx.TransportError):
        httpx.get(runs)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    shown = call("dashboard", "--runs", tmp_path / "none", "--data", tmp_path / "labels")
    assert shown.exit_code == 2
    assert "none is no folder" in " ".join(shown.output.split())
