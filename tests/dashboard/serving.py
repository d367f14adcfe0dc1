"""A real `tdm-r1 dashboard` in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.labels.store.database import Database
from services.web.clock import utc_now
from services.web.keys import ROLES, parse_key
from tests.labels.live import eventually
from tests.labels.people import make_key


@dataclass(frozen=True)
class Dashboard:
    """Where it is, and the secret of the link that it has printed."""

    process: "subprocess.Popen[str]"
    url: str
    invite: str


@contextmanager
def keys_of(data: Path) -> Iterator[Database]:
    """The label service's database under `data`, beside whoever has it open."""
    data.mkdir(parents=True, exist_ok=True)
    database = Database.open(f"sqlite:///{data / 'labels.db'}")
    try:
        yield database
    finally:
        database.close()


def make_keys(data: Path) -> dict[str, str]:
    """A key of each role there."""
    with keys_of(data) as database:
        return {role: make_key(database, role, utc_now()) for role in ROLES}


def revoke(key: str, data: Path) -> None:
    """End a key as `tdm-r1 keys revoke` does, from another process than the dashboard's."""
    parsed = parse_key(key)
    assert parsed is not None
    command = [sys.executable, "-m", "services.cli", "keys", "revoke", parsed[0]]
    subprocess.run([*command, "--data", str(data)], check=True, env=_environment())


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(
    runs: Path, data: Path, port: int | None = 0, log: Path | None = None
) -> Iterator[Dashboard]:
    """Start it and wait until it has said where it is; what it says goes into the file `log`."""
    command = [sys.executable, "-m", "services.cli", "dashboard", "--runs", str(runs)]
    command += ["--port", str(port), "--data", str(data)]
    pipe = subprocess.PIPE
    with (
        nullcontext() if log is None else log.open("w") as said,
        subprocess.Popen(
            command, stdout=pipe, stderr=said, text=True, env=_environment()
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url, _, invite = process.stdout.readline().split()[2].partition("/login#invite=")
            eventually(lambda: _is_ready(url), 60)
            yield Dashboard(process, url, invite)
        finally:
            process.send_signal(signal.SIGKILL)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False
