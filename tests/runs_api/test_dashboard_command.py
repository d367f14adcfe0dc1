"""`tdm-r1 dashboard` and `serve --runs`, as somebody types them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from services.commands.listening import GRACE_S
from tests.labels.live import eventually
from tests.labels.test_serve import call
from tests.runs_api.people import bearer

pytestmark = pytest.mark.integration
PUBLIC = "runs.example"
FOREIGN = "origin-not-allowed"


@contextmanager
def started(*arguments, cwd=None):
    """Lines that the command says; it is told to end at the end."""
    command = [sys.executable, "-m", "services.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, text=True, env=environment, cwd=cwd) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.send_signal(signal.SIGTERM)


def api_of(said):
    """The API's address, from what is said of the dashboard's: it has the link that opens it."""
    return said.partition("login#invite=")[0] + "api/v1/runs"


def key(data, role):
    made = call("keys", "create", "--role", role, "--name", role, "--data", data)
    return made.stdout.strip()


def test_keys_of_the_label_service_open_the_runs_until_they_are_revoked(finished, tmp_path):
    data = tmp_path / "labels"
    viewer = key(data, "viewer")
    runs = finished.path.parent
    with (
        ExitStack() as listening,
        started("dashboard", "--runs", runs, "--port", 0, "--data", data) as said,
    ):
        address = api_of(said.readline().split(" at ")[1])
        ask = lambda: httpx.get(address, headers=bearer(viewer), timeout=30)  # noqa: E731
        (run,) = eventually(lambda: ask().json()["items"])
        assert run["run_id"] == finished.id
        assert httpx.get(address).status_code == 401
        events = f"{address}/{finished.id}/events"
        stream = httpx.stream("GET", events, headers=bearer(viewer))
        assert listening.enter_context(stream).is_success
        call("keys", "revoke", viewer.split("_")[1], "--data", data)
        assert ask().status_code == 401
        told_to_end = time.monotonic()
    assert time.monotonic() - told_to_end < GRACE_S / 2, "it waits for its streams"


def through(peer):
    """A client whose requests come from this address and say that the browser spoke https."""
    browser = {"Host": PUBLIC, "Origin": f"https://{PUBLIC}", "X-Forwarded-Proto": "https"}
    return httpx.Client(
        transport=httpx.HTTPTransport(local_address=peer), headers=browser, timeout=30
    )


def test_serve_starts_the_dashboard_beside_with_its_settings_and_takes_it_along(finished, tmp_path):
    data = tmp_path / "labels"
    secret = key(data, "admin")
    options = ("--port", 0, "--dashboard-port", 0, "--data", data)
    proxy = ("--trusted-proxy", "127.0.0.2", "--allowed-host", PUBLIC)
    with (
        started("serve", "--runs", finished.path.parent, *options, *proxy) as lines,
        through("127.0.0.2") as trusted,
        through("127.0.0.1") as untrusted,
    ):
        said = dict(lines.readline().strip().split(" at ") for _ in range(2))
        runs = api_of(said["runs"])
        assert httpx.get(runs, timeout=30).status_code == 401

        labels = httpx.URL(said["labels"]).join("/api/v1/session")
        assert trusted.post(labels, json={"invite": "x"}).status_code == 401  # no such invite
        assert untrusted.post(labels, json={"invite": "x"}).json()["code"] == FOREIGN

        session = httpx.URL(runs).join("/api/v1/session")
        assert untrusted.post(session, json={"secret": secret}).json()["code"] == FOREIGN
        signed_in = trusted.post(session, json={"secret": secret})
        assert signed_in.status_code == 204
        assert "; secure" in signed_in.headers["set-cookie"].lower()

        socket = httpx.URL(runs).join("/_nicegui_ws/socket.io/?EIO=4&transport=polling")
        cookie = {"Cookie": signed_in.headers["set-cookie"].partition(";")[0]}
        assert trusted.get(socket, headers=cookie).status_code == 200
        assert untrusted.get(socket, headers=cookie).status_code == 401
    with pytest.raises(httpx.TransportError):
        httpx.get(runs)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    shown = call("dashboard", "--runs", tmp_path / "none", "--data", tmp_path / "labels")
    assert shown.exit_code == 2
    assert "none is no folder" in " ".join(shown.output.split())


@pytest.mark.parametrize("option", ["--data {}", "--database-url sqlite:///{}/labels.db"])
def test_a_label_database_that_is_named_is_there_or_refused(tmp_path, option):
    typo = tmp_path / "labells"
    shown = call("dashboard", "--runs", tmp_path, *option.format(typo).split())
    assert shown.exit_code == 2
    assert "make it: tdm-r1 keys create" in " ".join(shown.output.split())
    assert not typo.exists()


def test_a_first_look_needs_no_label_database(finished, tmp_path):
    with started("dashboard", "--runs", finished.path.parent, "--port", 0, cwd=tmp_path) as said:
        assert "login#invite=" in said.readline()
        assert (tmp_path / "labels" / "labels.db").exists()
