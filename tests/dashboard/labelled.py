"""People's labels on groups of a run, as they come about at a label service."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import update
from sqlalchemy.orm import Session

from services.labels import gold
from services.labels.gold import GoldAnswer
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.labels.store.tables import Annotator, Label, RewardMessage, Table
from tests.labels.labelling_cases import World

PEOPLE = ("Ann", "Bob", "Cem", "Eve")
NUM_GROUPS, NUM_OPEN = 24, 4


def label(data: Path, run_id: str, texts: Sequence[str] = ("Dan", "no group of its run")) -> None:
    """Five people label most of 24 groups within the last 40 minutes; Eve says always the same and
    fails on gold, two groups are held, one reward could not be delivered. `texts` are the fifth
    one's name, and why."""
    _write(data, lambda session: _label(session, run_id, *texts[:2]))


def label_one(data: Path, run_id: str) -> None:
    """One more group, and its labels."""

    def operation(session: Session) -> None:
        here = World(session)
        here.now = datetime.now(UTC)
        here.label("Ann", here.group(f"{run_id}-0", run_id=run_id), "lldd")

    _write(data, operation)


def forget(data: Path) -> None:
    """Empty every table but those of people's keys."""

    def operation(session: Session) -> None:
        for table in reversed(Table.metadata.sorted_tables):
            if table.name not in ("annotators", "api_keys"):
                session.execute(table.delete())

    _write(data, operation)


def _write(data: Path, operation) -> None:
    database = Database.open(Settings(data_dir=data).url)
    try:
        database.write_now(operation)
    finally:
        database.close()


def _label(session: Session, run_id: str, name: str, why: str) -> None:
    rng = random.Random(0)
    here = World(session)
    now = datetime.now(UTC)
    here.now = now - timedelta(minutes=40)
    images = here.group("gold", run_id=run_id)
    answers = [GoldAnswer(n, "like" if n < 2 else "dislike") for n in range(4)]
    gold.mark(session, "gold", answers, here.now, here.settings)
    session.add(Annotator(id="fifth", name=name, created_at=here.now))
    for who in (*PEOPLE[:3], "fifth"):
        here.label(who, images, "lldd")
    for n in range(NUM_GROUPS):
        overlap = 1 + (n % 2 == 0)
        images = here.group(f"{run_id}-{n}", run_id=run_id, overlap=overlap)
        for who in rng.sample((*PEOPLE, "fifth"), overlap) if n < NUM_GROUPS - NUM_OPEN else ():
            said = "llll" if who == "Eve" else "".join(rng.choice("llldd") for _ in images)
            lease = here.claim(who)
            assert lease is not None
            here.wait(rng.randrange(10, 60))
            here.submit(lease, said)
        here.wait(rng.randrange(20, 60))
    here.now = now
    here.claim("Ann")
    here.claim("Cem")
    session.execute(update(Label).values(latency_ms=Label.seq % 7 * 300 + 900))
    record_of_eve = {"gold_right": 2, "gold_answered": 12, "weight": 0}
    session.execute(update(Annotator).where(Annotator.id == "Eve").values(record_of_eve))
    dead = {"state": "dead", "reason": f"received 5 times; the last reason given: {why}"}
    first = RewardMessage.group_id == f"{run_id}-0"
    session.execute(update(RewardMessage).where(first).values(dead))
