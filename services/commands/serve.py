"""`tdm-r1 serve`: the label service under uvicorn, until Ctrl-C."""

import logging
import os
from socket import IPPROTO_TCP, TCP_NODELAY

import uvicorn

from services.commands.console import note, say
from services.labels.api_keys import any_live_key
from services.labels.app import create_app
from services.labels.settings import LOOPBACK, Settings
from services.labels.store.database import Database
from services.web.clock import utc_now
from services.web.logs import log_to_stderr

GRACE_S = 10
"""How long open requests may take once the service is told to end."""


def serve(settings: Settings) -> None:
    """Serve until a signal; ValueError where the address must not or cannot be listened on."""
    os.umask(0o077)  # What is written here is people's, and nobody else's on this machine.
    database = Database.open(settings.url)
    try:
        _check_bind(settings, database)
        log_to_stderr()
        server = uvicorn.Server(_config(settings, database))
        try:
            socket = server.config.bind_socket()
        except SystemExit as error:  # uvicorn's way to say that the address is taken
            raise ValueError(
                f"cannot listen on {settings.host}:{settings.port}, as the log says; another "
                "service may be there: give another --port, or 0 for any free one"
            ) from error
        # Of a socket made here asyncio does not know that it is TCP: an answer's second packet
        # would wait 40 ms for the first one's acknowledgement.
        socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"labels at http://{name}:{socket.getsockname()[1]}/label")
        server.run(sockets=[socket])
    finally:
        database.close()


def _check_bind(settings: Settings, database: Database) -> None:
    if database.read_now(lambda session: any_live_key(session, utc_now())):
        return
    remedy = f"tdm-r1 keys create --role admin --name me --data {settings.data_dir}"
    if settings.host not in LOOPBACK:
        raise ValueError(
            f"--host {settings.host} would open a service without keys to the network; "
            f"make the first key, then serve: {remedy}"
        )
    note(f"nobody has a key yet; make the first one in another terminal: {remedy}")


def _config(settings: Settings, database: Database) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings, database=database),
        host=settings.host,
        port=settings.port,
        log_config=None,  # Ours redacts.
        log_level=logging.INFO,
        access_log=False,  # Theirs writes whole addresses; ours is in services/web/middleware.py.
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=GRACE_S,
    )
