"""A real HTTP server that does what a test's script says, and the faults that such scripts have."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Plays the server's script, one entry a request; the last entry goes on for ever."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server: ScriptedServer = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"] == "application/json":
            body = json.loads(body)
        with server.lock:
            server.requests.append((self.path, self.headers, body))
            act = server.script.pop(0) if len(server.script) > 1 else server.script[0]
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            act(self)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up, as it should
        finally:
            with server.lock:
                server.busy -= 1

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Quiet."""


Act = Callable[[Handler], None]


class ScriptedServer(ThreadingHTTPServer):
    """Keeps what it was asked; JSON bodies parsed, others as bytes."""

    def __init__(self, script: list[Act]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[tuple[str, Any, Any]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.busy = self.most_busy = 0


@contextmanager
def serving(*script: Act, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """A server on a free port of this machine, over TLS if told; its `script` may be replaced."""
    server = ScriptedServer(list(script))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def broken(handler: Handler) -> None:
    handler.answer(500, b"out of memory")


def limited(handler: Handler) -> None:
    handler.answer(429, b"slow down", retry_after="1")


def limited_for_an_hour(handler: Handler) -> None:
    handler.answer(429, b"slow down", retry_after="3600")


def junk(handler: Handler) -> None:
    handler.answer(200, b"<html>welcome</html>")


def deep_junk(handler: Handler) -> None:
    handler.answer(200, b"[" * 100_000)


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" " * 100_000)


def dripping(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    while not handler.server.closing.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hanging(handler: Handler) -> None:
    handler.server.closing.wait(20)
    handler.close_connection = True


def closing(handler: Handler) -> None:
    handler.close_connection = True


def echoing_the_key(handler: Handler) -> None:
    handler.answer(401, f"bad {handler.headers['authorization']}".encode())


def redirecting(handler: Handler) -> None:
    handler.answer(307, b"", location="http://127.0.0.1:1/")
