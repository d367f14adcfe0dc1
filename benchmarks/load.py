"""Many HTTP clients in one thread: requests are bytes made beforehand, answers barely looked at.

A client is a generator: it yields a request to send or seconds to pause, and is sent the answer.
One thread plays them all over one selector, so a request costs the client some 40 microseconds,
and what is measured is the server.
"""

import heapq
import selectors
import socket
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

READ = 1 << 16


class Answer(NamedTuple):
    """What came back; `seconds` from the request's first byte to the answer's last."""

    status: int
    body: bytes
    seconds: float


Client = Generator[bytes | float, Answer | None, None]
"""Yields requests (answered by an Answer) and pauses in seconds (answered by None)."""


def request(method: str, path: str, key: str, body: bytes = b"", idempotency: str = "") -> bytes:
    """One request, whole."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if idempotency:
        lines.append(f"Idempotency-Key: {idempotency}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def expect(answer: Answer | None, *statuses: int) -> Answer:
    """The answer to a request; RuntimeError where it is of another status."""
    assert answer is not None
    if answer.status not in statuses:
        raise RuntimeError(f"{answer.status}, not one of {statuses}: {answer.body[:300]!r}")
    return answer


def quantile(times: Sequence[float], share: float) -> float:
    """What that share of them does not exceed; NaN of none."""
    ordered = sorted(times)
    return ordered[int(share * (len(ordered) - 1))] if ordered else float("nan")


def play(port: int, clients: Sequence[Client]) -> None:
    """Run every client to its end, each over a connection of its own."""
    _Stage(port).play(clients)


@dataclass(eq=False)
class _Player:
    client: Client
    socket: socket.socket
    since: float = 0.0
    asked: bytes = b""
    """What is on its way; nothing during a pause."""
    heard: bytearray = field(default_factory=bytearray)


class _Stage:
    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._pauses: list[tuple[float, int, _Player]] = []
        self._playing = 0

    def play(self, clients: Sequence[Client]) -> None:
        """See `play`."""
        players = [_Player(client, self._connect()) for client in clients]
        for player in players:
            self._selector.register(player.socket, selectors.EVENT_READ, player)
        self._playing = len(players)
        for player in players:
            self._go_on(player, None)
        while self._playing:
            timeout = max(0.0, self._pauses[0][0] - time.perf_counter()) if self._pauses else None
            for key, _ in self._selector.select(timeout):
                self._hear(key.data)
            while self._pauses and self._pauses[0][0] <= time.perf_counter():
                self._go_on(heapq.heappop(self._pauses)[2], None)

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(("127.0.0.1", self._port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def _go_on(self, player: _Player, answer: Answer | None) -> None:
        try:
            wanted = player.client.send(answer)
        except StopIteration:
            self._selector.unregister(player.socket)
            player.socket.close()
            self._playing -= 1
            return
        if isinstance(wanted, bytes):
            player.asked, player.since = wanted, time.perf_counter()
            self._ask(player)
        else:
            player.asked = b""
            heapq.heappush(self._pauses, (time.perf_counter() + wanted, id(player), player))

    def _hear(self, player: _Player) -> None:
        try:
            chunk = player.socket.recv(READ)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self._call_again(player)
            return
        player.heard += chunk
        end = player.heard.find(b"\r\n\r\n")
        if end < 0:
            return
        end += 4
        length = _length(bytes(player.heard[:end]))
        if len(player.heard) < end + length:
            return
        body = bytes(player.heard[end:])
        status = int(player.heard[9:12])
        player.heard.clear()
        self._go_on(player, Answer(status, body, time.perf_counter() - player.since))

    def _call_again(self, player: _Player) -> None:
        """A server ends a connection on which nothing was said for a while; so a request may be
        sent twice, as by any client."""
        if player.heard:
            raise RuntimeError(f"the service hung up in the middle: {bytes(player.heard)!r}")
        self._selector.unregister(player.socket)
        player.socket.close()
        player.socket = self._connect()
        self._selector.register(player.socket, selectors.EVENT_READ, player)
        self._ask(player)

    def _ask(self, player: _Player) -> None:
        # Where the server has hung up, the selector tells next.
        with suppress(ConnectionError):
            player.socket.sendall(player.asked)


def _length(head: bytes) -> int:
    place = head.lower().find(b"\r\ncontent-length:")
    if place < 0:
        return 0
    start = place + len(b"\r\ncontent-length:")
    return int(head[start : head.index(b"\r\n", start)])
