"""An app behind a socket of this machine, under uvicorn, until a signal."""

import gc
import logging
from collections.abc import Sequence
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

import uvicorn

from services.commands.console import note, say
from services.labels.api_keys import any_live_key
from services.labels.store.database import Database
from services.web.clock import utc_now
from services.web.hosts import LOOPBACK

GRACE_S = 10
"""How long open requests may take once the service is told to end."""


def listen(app: Any, host: str, port: int, trusted_proxies: Sequence[str], what: str) -> None:
    """Serve until a signal; `what` is said with the address. ValueError where it is taken."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # Ours redacts.
        log_level=logging.INFO,
        access_log=False,  # Theirs writes whole addresses; ours is in services/web/middleware.py.
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config)
    try:
        socket = config.bind_socket()
    except SystemExit as error:  # uvicorn's way to say that the address is taken
        raise ValueError(
            f"cannot listen on {host}:{port}, as the log says; another service may be there: give "
            "another --port, or 0 for any free one"
        ) from error
    # Of a socket made here asyncio does not know that it is TCP: an answer's second packet would
    # wait 40 ms for the first one's acknowledgement.
    socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    socket.listen(config.backlog)  # who comes as soon as it is said waits, and is not refused
    # What is here now stays: looking through it for garbage again and again held up every request
    # for a tenth of a second.
    gc.collect()
    gc.freeze()
    name = f"[{host}]" if ":" in host else host
    say(what.format(address=f"http://{name}:{socket.getsockname()[1]}"))
    server.run(sockets=[socket])


class _Server(uvicorn.Server):
    """Waits for open requests at its end, but not for streams: they have none of their own."""

    async def shutdown(self, sockets: Any = None) -> None:
        """As soon as no request is open any more."""
        app: Any = self.config.app
        app.state.streams.end()
        await super().shutdown(sockets)


def check_bind(database: Database, host: str, data_dir: object) -> None:
    """ValueError where a service without keys would be open to the network."""
    if database.read_now(lambda session: any_live_key(session, utc_now())):
        return
    remedy = f"tdm-r1 keys create --role admin --name me --data {data_dir}"
    if host not in LOOPBACK:
        raise ValueError(
            f"--host {host} would open a service without keys to the network; "
            f"make the first key, then serve: {remedy}"
        )
    note(f"nobody has a key yet; make the first one in another terminal: {remedy}")
