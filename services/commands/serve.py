"""`tdm-r1 serve`: the label service under uvicorn, until Ctrl-C; the dashboard beside, if asked."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.commands.listening import GRACE_S, check_bind, listen
from services.labels.app import create_app
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.web.logs import log_to_stderr


def serve(settings: Settings, runs: Path | None = None, dashboard_port: int = 8322) -> None:
    """Serve until a signal; ValueError where the address must not or cannot be listened on."""
    os.umask(0o077)  # What is written here is people's, and nobody else's on this machine.
    database = Database.open(settings.url)
    try:
        check_bind(database, settings.host, settings.data_dir)
        log_to_stderr()
        app = create_app(settings, database=database)
        what = "labels at {address}/label"
        with _dashboard(settings, runs, dashboard_port):
            listen(app, settings.host, settings.port, settings.trusted_proxies, what)
    finally:
        database.close()


@contextmanager
def _dashboard(settings: Settings, runs: Path | None, port: int) -> Iterator[None]:
    """`tdm-r1 dashboard` over `runs` meanwhile, on its own port and with the same keys."""
    if runs is None:
        yield
        return
    command = [sys.executable, "-m", "services.cli", "dashboard", "--runs", str(runs)]
    command += ["--host", settings.host, "--port", str(port), "--data", str(settings.data_dir)]
    # The URL may hold a password, and a command line is everybody's to read.
    environment = os.environ | {"TDMR1_DATABASE_URL": settings.url}
    # uvicorn ends by raising the signal that it was told to end by; it must not end us before that
    # process has been.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(GRACE_S + 5)
            except subprocess.TimeoutExpired:
                process.kill()
