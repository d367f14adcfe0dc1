"""A socket is its own browser's: it hears that browser's pages alone, and presses their buttons."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs

from nicegui import Client, core
from socketio.exceptions import ConnectionRefusedError
from starlette.requests import cookie_parser

from services.dashboard.sessions import COOKIE

log = logging.getLogger(__name__)
OF_A_PAGE = ("handshake", "event", "javascript_response", "ack")
"""What NiceGUI hears of a page: `client_id` names it."""
REFUSED = "Implicit handshake failed"
"""NiceGUI's word for it, at which the browser loads its page anew."""
Handler = Callable[..., Any]


def keep_events_to_own_pages() -> None:
    """NiceGUI takes a socket's word for which page it is of; here the session of the socket has to
    be the page's. Call it once NiceGUI runs with the app."""
    sockets: Any = core.sio  # its handlers and its environments are declared as optional
    handlers: dict[str, Handler] = sockets.handlers["/"]
    for name in OF_A_PAGE:
        handlers[name] = partial(_hear, handlers[name], sockets.get_environ)
    handlers["connect"] = partial(_connect, handlers["connect"])
    handlers["log"] = _note


async def _connect(connect: Handler, socket_id: str, environ: dict[str, Any], *auth: Any) -> Any:
    page_id = parse_qs(environ.get("QUERY_STRING", "")).get("client_id", [None])[0]
    if page_id is not None and not _is_own(page_id, environ):
        raise ConnectionRefusedError(REFUSED)
    return await connect(socket_id, environ, *auth)


async def _hear(handler: Handler, environ_of: Handler, socket_id: str, said: Any = None) -> Any:
    page_id = said.get("client_id") if isinstance(said, dict) else None
    if not _is_own(page_id, environ_of(socket_id)):
        return False
    answer = handler(socket_id, said)
    return await answer if isawaitable(answer) else answer


def _is_own(page_id: Any, environ: Mapping[str, Any]) -> bool:
    page = Client.instances.get(page_id) if isinstance(page_id, str) else None
    # Not http.cookies: that gives up at the first cookie, of whatever else is on this host, that it
    # does not like.
    sent = cookie_parser(environ.get("HTTP_COOKIE", "")).get(COOKIE)
    return page is not None and sent is not None and sent == page.request.cookies.get(COOKIE)


def _note(socket_id: str, said: Any = None) -> None:
    """NiceGUI would write what a browser says into the log as it is, line breaks and all."""
    text = said.get("message") if isinstance(said, dict) else said
    log.warning("a browser says: %.300r", str(text))
