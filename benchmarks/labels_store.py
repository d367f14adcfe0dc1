"""Durable labels a second through the store's writer, and how long one takes.

    python benchmarks/labels_store.py                              # SQLite in a temporary folder
    python benchmarks/labels_store.py postgresql+psycopg://...     # and an empty database there

Each client writes one label after another and waits for each to be on the disk: a label is a new
row, its group's count and an event, in one operation. No HTTP is in the way. Prints a table, then
one JSON object; `--seconds` is for each number of clients.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.tables import (
    Annotator,
    Event,
    Group,
    GroupImage,
    Image,
    Label,
    Question,
    Run,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLIENTS = (1, 8, 32, 100)
GROUPS, IMAGES = 500, 8


def seed(session: Session) -> None:
    """Groups to label, and people."""
    session.execute(insert(Question), [{"id": "q", "text": "?", "created_at": NOW}])
    image = {"sha256": "0" * 64, "media_type": "image/png", "width": 1, "height": 1, "num_bytes": 1}
    session.execute(insert(Image), [image | {"created_at": NOW}])
    names = [f"person-{n}" for n in range(max(CLIENTS))]
    session.execute(insert(Annotator), [{"id": n, "name": n, "created_at": NOW} for n in names])
    session.execute(insert(Run), [{"id": "run", "newest_policy": 0}])
    group = {"run_id": "run", "prompt_id": "p", "prompt_text": "a cat", "question_id": "q"}
    group |= {"num_images": IMAGES, "policy_version": 0, "body_sha256": ""}
    group |= {"sampler": {}, "auto_rewards": {}, "created_at": NOW}
    session.execute(insert(Group), [group | {"id": f"g{g}"} for g in range(GROUPS)])
    places = [
        {"id": f"g{g}-{i}", "group_id": f"g{g}", "index": i, "sha256": image["sha256"]}
        for g in range(GROUPS)
        for i in range(IMAGES)
    ]
    session.execute(insert(GroupImage), places)


def write_label(session: Session, person: int, place: int, id: str) -> None:
    """What one like costs."""
    group = session.get_one(Group, f"g{place // IMAGES}")
    label = Label(
        id=id,
        image_id=f"{group.id}-{place % IMAGES}",
        group_id=group.id,
        run_id=group.run_id,
        question_id="q",
        annotator_id=f"person-{person}",
        guidelines_version=1,
        value="like",
        flags=[],
        received_at=NOW,
        source="api",
        policy_version=0,
    )
    group.num_labels += 1
    event = Event(topic="labels", type="label", data={"id": id}, audience="viewer", at=NOW)
    session.add_all([label, event])


async def measure(database: Database, clients: int, seconds: float) -> dict[str, float]:
    """Labels a second, and the middle and the slowest hundredth of their times in ms."""
    end = time.perf_counter() + seconds
    times_ms: list[float] = []

    async def person(number: int) -> None:
        places = random.Random(number).sample(range(GROUPS * IMAGES), GROUPS * IMAGES)
        for place in places:
            started = time.perf_counter()
            if started > end:
                return
            id = f"{clients}-{number}-{place}"
            await database.write(partial(write_label, person=number, place=place, id=id))
            times_ms.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(person(number) for number in range(clients)))
    rate = len(times_ms) / (time.perf_counter() - started)
    cuts = statistics.quantiles(times_ms, n=100)
    return {"clients": clients, "per_second": rate, "p50_ms": cuts[49], "p99_ms": cuts[98]}


def forget(session: Session) -> None:
    """No label is left, so that the next people meet as many."""
    session.execute(delete(Label))


def measure_all(url: str, seconds: float) -> list[dict[str, float]]:
    """One row for each number of clients."""
    database = Database.open(url)
    database.write_now(seed)
    rows = []
    for clients in CLIENTS:
        rows.append(asyncio.run(measure(database, clients, seconds)))
        database.write_now(forget)
    database.close()
    return rows


def main() -> None:
    """Print the table and the JSON."""
    parser = argparse.ArgumentParser(description="durable labels a second")
    parser.add_argument("url", nargs="?", help="an empty database; SQLite if not given")
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_all(arguments.url or f"sqlite:///{folder}/labels.db", arguments.seconds)
    print("clients  labels/s   p50 ms   p99 ms")
    for row in rows:
        print("{clients:7d}{per_second:10.0f}{p50_ms:9.1f}{p99_ms:9.1f}".format(**row))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
