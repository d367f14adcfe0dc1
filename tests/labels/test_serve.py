"""`tdm-r1 serve` and `tdm-r1 keys`, as somebody types them."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from typer.testing import CliRunner

from services.cli import app as cli
from services.commands.settings import dump, load
from services.runs_api.settings import Settings as RunsSettings
from services.web.keys import parse_key
from tests.labels.people import bearer
from tests.labels.postgresql import create_database

pytestmark = pytest.mark.integration


def call(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def secret_of(key):
    parsed = parse_key(key)
    assert parsed is not None
    return parsed[1]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "labels"


def test_the_first_admin_key_comes_from_the_command_line(data):
    made = call("keys", "create", "--role", "admin", "--name", "me", "--data", data)
    secret = secret_of(made.stdout.strip())
    assert "no label database was there; a new one is made" in made.stderr
    shown = call("keys", "list", "--data", data)
    assert "a new one" not in shown.stderr
    assert "me" in shown.stdout
    assert secret not in shown.output
    (row,) = json.loads(call("keys", "list", "--data", data, "--json").stdout)
    revoked = call("keys", "revoke", row["key_id"], "--data", data, "--json")
    assert json.loads(revoked.stdout)["revoked_at"] is not None
    assert "the last active admin key" in revoked.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("create --role god --name me", "unknown role 'god'; allowed: viewer, annotator"),
        ("create --role admin --name me --scope labels:push", "not for role admin"),
        ("create --role annotator --name me --annotator x", "no annotator 'x'"),
        ("revoke 123", "no key '123'"),
    ],
)
def test_mistakes_are_explained(data, arguments, complaint):
    call("keys", "create", "--role", "admin", "--name", "me", "--data", data)
    shown = call("keys", *arguments.split(), "--data", data)
    assert shown.exit_code == 2
    assert complaint in shown.output


@pytest.mark.parametrize("command", ["list", "revoke 123", "invite Ann"])
def test_looking_for_keys_makes_no_store(data, command):
    shown = call("keys", *command.split(), "--data", data)
    assert shown.exit_code == 2
    assert f"{data}: the label store is not there" in shown.output
    assert not data.exists()


def test_looking_for_keys_makes_no_tables(postgresql_server):
    url = create_database(postgresql_server, "empty")
    for _ in range(2):
        shown = call("keys", "list", "--database-url", url)
        assert shown.exit_code == 2
        assert "database_url: the label store is not there" in shown.output
        assert "postgresql" not in shown.output  # it may have a password in it


@pytest.mark.parametrize("command", ["backup new", "restore gone"])
def test_a_backup_of_nothing_is_one_message(data, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    shown = call("labels", *command.split(), "--data", data)
    assert shown.exit_code == 2
    assert "no database at" in shown.output or "gone.manifest.json: No such file" in shown.output
    data.mkdir()
    (data / "labels.db").write_text("no database, and long enough to be read as one" * 10)
    shown = call("labels", *command.split(), "--data", data)
    assert shown.exit_code == 2
    assert "not a database" in shown.output or "is not overwritten" in shown.output
    assert [path.name for path in tmp_path.iterdir()] == [data.name]


@pytest.mark.parametrize("command", ["serve", "keys list"])
@pytest.mark.parametrize("damage", ["no folder", "no database"])
def test_a_place_that_takes_no_labels_is_named_with_what_helps(data, command, damage):
    if damage == "no folder":
        data.write_text("a file")
    else:
        data.mkdir()
        (data / "labels.db").write_text("no database, and long enough to be read as one" * 10)
    shown = call(*command.split(), "--data", data)
    assert shown.exit_code == 2
    assert f"{data}: the label store" in shown.output
    assert "--data" in shown.output


def test_a_service_without_keys_does_not_listen_to_the_network(data):
    shown = call("serve", "--host", "0.0.0.0", "--port", "0", "--data", data)
    assert shown.exit_code == 2
    assert "without keys" in shown.output
    assert "tdm-r1 keys create" in shown.output


def test_a_port_that_is_taken_is_named_with_what_helps(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        shown = call("serve", "--port", str(port), "--data", data)
    assert shown.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in shown.output
    assert "give another --port" in shown.output


def test_a_wrong_setting_is_named(tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text("lease_second: 3\n")
    shown = call("serve", "--settings", file)
    assert shown.exit_code == 2
    assert "lease_second" in shown.output


def test_the_flags_come_before_the_file(tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text("port: 1\nlease_seconds: 3\nhost: labels.example\n")
    settings, _ = load(file, {"port": 2, "database_url": None})
    assert (settings.port, settings.lease_seconds) == (2, 3)
    assert "labels.example" in settings.allowed_hosts


def test_one_file_is_for_both_services_and_what_one_has_alone_is_its_own(tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text(
        "port: 1\ntrusted_proxies: [10.0.0.0/8]\nscrape_token: t\nmax_body_bytes: 9\n"
        "allowed_hosts: [labels.example]\n"
        "dashboard: {runs: there, allowed_hosts: [runs.example], allowed_origins: ['https://a:1']}\n"
    )
    labels, dashboard = load(file, dashboard={"port": 3})
    assert labels.allowed_hosts == ("labels.example", "127.0.0.1")
    assert dashboard.allowed_hosts == ("runs.example", "127.0.0.1")
    assert labels.trusted_proxies == dashboard.trusted_proxies == ("10.0.0.0/8",)
    assert (labels.allowed_origins, dashboard.allowed_origins) == ((), ("https://a:1",))
    assert (dashboard.port, dashboard.scrape_token, str(dashboard.cache)) == (
        3,
        "t",
        "there/.cache",
    )
    assert (labels.max_body_bytes, dashboard.max_body_bytes) == (9, RunsSettings().max_body_bytes)
    (tmp_path / "both.yaml").write_text(dump(labels, dashboard))
    assert load(tmp_path / "both.yaml") == (labels, dashboard)


def test_a_label_service_elsewhere_needs_a_key(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("dashboard:\n  labels_url: http://labels.example:8321\n")
    with pytest.raises(ValueError, match=r"without labels_key.*TDMR1_LABELS_KEY"):
        load(file)
    _, dashboard = load(file, dashboard={"labels_key": "tdmr1_secret"})
    assert "tdmr1_secret" not in repr(dashboard)
    with pytest.raises(ValueError, match="labels_url"):
        load(None, dashboard={"labels_url": "file:///etc/passwd", "labels_key": "k"})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("trusted_proxies: ['*']", "write 127.0.0.1 or 10.0.0.0/8"),
        ("trusted_proxies: [proxy.example]", "'proxy.example' is neither"),
        ("allowed_origins: ['https://a.example/']", "'https://a.example/' is no origin"),
        ("dashboard: {rusn: x}", "rusn"),
        ("dashboard: x", "`dashboard:` of"),
    ],
)
def test_what_a_service_cannot_believe_is_refused_with_what_it_can(tmp_path, line, complaint):
    (tmp_path / "labels.yaml").write_text(line)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        load(tmp_path / "labels.yaml")


def test_the_service_says_where_it_is_and_keeps_keys_out_of_its_log(data):
    key = call("keys", "create", "--role", "admin", "--name", "me", "--data", data).stdout.strip()
    command = [sys.executable, "-m", "services.cli", "serve", "--port", "0", "--data", str(data)]
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": "."}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as served:
        assert served.stdout is not None
        assert served.stderr is not None
        try:
            address = served.stdout.readline().split()[-1].removesuffix("/label")
            wait_for(f"{address}/readyz")
            assert httpx.get(f"{address}/api/v1/audit", headers=bearer(key)).status_code == 200
            assert httpx.get(f"{address}/api/v1/audit?api_key={key}").status_code == 400
            assert httpx.get(f"{address}/api/v1/{key}").status_code == 400
            body = {"name": key, "role": key}
            headers = bearer(key, Idempotency_Key=key)
            assert (
                httpx.post(f"{address}/api/v1/api-keys", json=body, headers=headers).status_code
                == 422
            )
        finally:
            served.send_signal(signal.SIGTERM)
        log = served.stderr.read()
    secret = secret_of(key)
    assert "GET /api/v1/audit 200" in log
    assert secret not in log
    files = [path for path in data.rglob("*") if path.is_file()]
    assert all(secret.encode() not in path.read_bytes() for path in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def wait_for(address):
    for _ in range(200):
        try:
            return httpx.get(address).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{address} did not answer")


def test_the_live_server_answers(live_server):
    assert httpx.get(f"{live_server}/healthz").json() == {"status": "ok"}


def test_a_logged_traceback_has_no_secret(caplog):
    from services.web.logs import FORMAT, RedactingFormatter

    key = "tdmr1_01KDWPVNG0646V3517PQBCV6BJ_7mf9FmqXZQxCZk8ZtywjnL8gcwfUNYF0IV_-1fTq-Yg"
    try:
        raise RuntimeError(f"cannot use {key}")
    except RuntimeError:
        logging.getLogger("x").exception("with %s", key)
    text = RedactingFormatter(FORMAT).format(caplog.records[0])
    assert "cannot use tdmr1_..." in text
    assert "7mf9FmqXZQ" not in text
