"""How long until 200 listeners have heard of a label: `GET /events` over bare sockets.

    python -m benchmarks.label_events [--database-url postgresql+psycopg://...] [--clients 200]

Prints p50, p95 and p99 of a delivery, from the moment in which the label was sent: so its commit is
in it, and the wait for the server's next look at the table, which comes every 100 ms. Labels that
come one by one first, then a burst of them. Clients share the machine with the server.
"""

import argparse
import asyncio
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from benchmarks.label_server import LabelServer
from benchmarks.load import quantile, request
from services.label_client.client import LabelClient
from services.label_client.models import LabelIn

CLIENTS = 200
PER_S = 10
"""Labels a second that come one by one."""
BURST = 200


class Block(NamedTuple):
    """One of a stream's blocks; what it lacks is None."""

    id: int | None
    kind: str | None
    """`reset`, or nothing for an event."""
    data: dict[str, Any] | None


class Stream:
    """An open stream of events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(
        cls,
        port: int,
        key: str,
        topics: str = "labels",
        last_id: int | None = None,
        receive_bytes: int | None = None,
    ) -> Self:
        """From `last_id` on, or from now on; it is there when this returns. The system holds about
        `receive_bytes` for a client who does not read, if they are given."""
        end = socket.socket()
        if receive_bytes is not None:  # before it connects, or the system makes it grow
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=end)
        asked = request("GET", f"/api/v1/events?topics={topics}", key)
        if last_id is not None:
            asked = asked.replace(b"\r\n", f"\r\nLast-Event-ID: {last_id}\r\n".encode(), 1)
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"no stream: {head!r}")
        return cls(reader, writer)

    async def __aiter__(self) -> AsyncIterator[Block]:
        """Blocks for as long as the other end sends them."""
        while True:
            try:
                text = await self._reader.readuntil(b"\n\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            # The lengths of chunks stand between blocks, on lines of their own.
            fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line)
            id, kind, data = (fields.get(name) for name in (b"id", b"event", b"data"))
            yield Block(
                None if id is None else int(id),
                None if kind is None else kind.decode(),
                None if data is None else json.loads(data),
            )

    def cut(self) -> None:
        """Gone, without a word."""
        self._writer.transport.abort()


async def measure(
    server: LabelServer, clients: int, batches: Sequence[Sequence[str]], per_s: float
) -> list[float]:
    """Send batches of labels, `per_s` of them a second, one label on each of these groups; what it
    took until each client had heard of each."""
    sent: dict[str, float] = {}
    delays: list[float] = []
    groups = sum(map(len, batches))
    streams = [await Stream.open(server.port, server.app) for _ in range(clients)]

    async def listen(stream: Stream) -> None:
        awaited = groups
        async for block in stream:
            if block.kind is not None:
                raise RuntimeError("a listener was told to start over")
            if block.data is not None:
                delays.append(time.perf_counter() - sent[block.data["data"]["group_id"]])
                awaited -= 1
            if not awaited:
                break
        stream.cut()

    listening = asyncio.gather(*map(listen, streams))
    with LabelClient(server.url, server.app) as app:
        for batch in batches:
            images = [f"{group}-0" for group in batch]
            labels = [LabelIn(image_id=id, value="like", annotator_ref="u") for id in images]
            sent |= dict.fromkeys((f"seed-{group}" for group in batch), time.perf_counter())
            await asyncio.to_thread(app.push_labels, labels)
            await asyncio.sleep(1 / per_s)
    await listening
    return delays


def main() -> None:
    """Print a line for each way in which labels come."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--database-url", help="a fresh SQLite file if not given")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    singles = int(PER_S * arguments.seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        LabelServer(Path(folder), arguments.database_url, max_streams=arguments.clients) as server,
    ):
        digests = server.ask(1)
        groups = [id.rpartition("-")[0] for id in server.seed_groups(digests, singles + BURST)]
        print("labels\tclients\tdeliveries\tp50 ms\tp95 ms\tp99 ms\tserver's ms each")
        for what, batches in (
            (f"{PER_S} a second", [[group] for group in groups[:singles]]),
            (f"{BURST} at once", [groups[singles:]]),
        ):
            cpu_s = server.cpu_s()
            delays = asyncio.run(measure(server, arguments.clients, batches, PER_S))
            cpu_ms = 1000 * (server.cpu_s() - cpu_s) / len(delays)
            told = (f"{1000 * quantile(delays, share):.0f}" for share in (0.5, 0.95, 0.99))
            print(
                what, arguments.clients, len(delays), *told, f"{cpu_ms:.3f}", sep="\t", flush=True
            )


if __name__ == "__main__":
    main()
