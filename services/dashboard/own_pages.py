"""A socket presses the buttons of its own browser's pages alone."""

from http.cookies import SimpleCookie
from typing import Any

from nicegui import Client, core

from services.dashboard.sessions import COOKIE


def keep_events_to_own_pages() -> None:
    """NiceGUI takes an event from any socket for whichever page it names; here the session of the
    socket has to be the page's. Call it once NiceGUI runs with the app."""

    sockets: Any = core.sio  # its `on` and its environments are declared as optional

    @sockets.on("event")
    def event(socket_id: str, message: dict[str, Any]) -> None:
        client = Client.instances.get(message["client_id"])
        if client is None or not client.has_socket_connection:
            return
        sent = SimpleCookie(sockets.get_environ(socket_id).get("HTTP_COOKIE", "")).get(COOKIE)
        if sent is not None and sent.value == client.request.cookies.get(COOKIE):
            client.handle_event(message)
