"""`tdm-r1 serve`: the label service under uvicorn, until Ctrl-C; the dashboard beside, if asked."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from services.commands.label_store import opened
from services.commands.listening import GRACE_S, check_bind, listen
from services.commands.settings import STDIN, dump
from services.labels.app import create_app
from services.labels.settings import Settings
from services.runs_api.settings import Settings as RunsSettings
from services.web.logs import log_to_stderr

FROM_ENVIRONMENT = ("TDMR1_DATABASE_URL", "TDMR1_SCRAPE_TOKEN")


def serve(settings: Settings, dashboard: RunsSettings, beside: bool = False) -> None:
    """Serve until a signal, `beside` with the dashboard; ValueError where the address must not or
    cannot be listened on."""
    with opened(settings) as database:
        check_bind(database, settings.host, settings.data_dir)
        log_to_stderr()
        app = create_app(settings, database=database)
        what = "labels at {address}/label"
        with _running(settings, dashboard) if beside else nullcontext():
            listen(app, settings.host, settings.port, settings.trusted_proxies, what)


@contextmanager
def _running(settings: Settings, dashboard: RunsSettings) -> Iterator[None]:
    """`tdm-r1 dashboard` meanwhile, on its own port and with the same keys."""
    command = [sys.executable, "-m", "services.cli", "dashboard", "--settings", str(STDIN)]
    # Settings hold secrets, and a command line is everybody's to read. What the environment says is
    # in them already, and would come before them.
    environment = {
        name: value for name, value in os.environ.items() if name not in FROM_ENVIRONMENT
    }
    # uvicorn ends by raising the signal that it was told to end by; it must not end us before that
    # process has been.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(dump(settings, dashboard))
            yield
        finally:
            process.terminate()
            try:
                process.wait(GRACE_S + 5)
            except subprocess.TimeoutExpired:
                process.kill()
