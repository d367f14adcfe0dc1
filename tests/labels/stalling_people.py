"""A process that a test starts: people who claim, label, stall, vanish half-way and send twice.

`python -m tests.labels.stalling_people URL NAME`: one JSON line for each submit, accepted or lost,
until no group is open.
"""

import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.labels import leases
from services.labels.labelling import Recorded, Verdict
from services.labels.people import by_id
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.labels.store.tables import Annotator, Assignment, Group
from services.labels.sweep import sweep

THREADS = 4
STALLS, VANISHES, RETRIES = 0.3, 0.15, 0.2
SETTINGS = Settings(data_dir=Path("unused"), lease_seconds=0.4, gold_rate=0, overlap_rate=0)
PATIENCE_S = 60


class Person:
    """Works until nothing is open; one who vanishes comes back as somebody else."""

    def __init__(self, database: Database, name: str) -> None:
        self._database, self._name, self._rng = database, name, random.Random(name)
        self._person = ""

    def run(self) -> None:
        """Claim and label."""
        self._become_somebody_else()
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and self._database.read_now(_num_open):
            lease = self._write(lambda s, now: leases.claim(s, self._person, None, now, SETTINGS))
            if lease is None:
                self._write(lambda s, now: sweep(s, now, SETTINGS))
                time.sleep(self._rng.uniform(0.01, 0.1))
            elif self._rng.random() < VANISHES:
                self._label(lease[0], self._rng.randrange(len(lease[0].positions)))
                self._become_somebody_else()
            else:
                self._label(lease[0], len(lease[0].positions))

    def _label(self, lease: Assignment, num_images: int) -> None:
        """As many images as that; all of them is final."""
        if self._rng.random() < STALLS:
            time.sleep(self._rng.uniform(0, 3 * SETTINGS.lease_seconds))  # a third is past the end
        final = num_images == len(lease.positions)
        labels = {
            image: self._rng.choice(("like", "dislike")) for image in lease.positions[:num_images]
        }

        def submit(session: Session, now: datetime) -> list[Recorded]:
            person = by_id(session, lease.annotator_id)
            own = leases.own(session, lease.id, person.id)
            verdicts = [Verdict(image, person, value) for image, value in labels.items()]
            return leases.submit(session, own, lease.token, verdicts, final, now, SETTINGS)

        try:
            for _ in range(1 + (self._rng.random() < RETRIES)):
                self._write(submit)
                self._say({"person": lease.annotator_id, "values": labels})
        except leases.LeaseLost:
            self._say({"lost": lease.group_id})

    def _say(self, line: dict[str, Any]) -> None:
        os.write(1, f"{json.dumps(line)}\n".encode())  # one call: whole lines

    def _become_somebody_else(self) -> None:
        id = f"{self._name}-{self._rng.getrandbits(40):x}"
        self._write(lambda s, now: s.add(Annotator(id=id, name=id, created_at=now)))
        self._person = id

    def _write(self, operation: Any) -> Any:
        return self._database.write_now(lambda session: operation(session, datetime.now(UTC)))


def _num_open(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Group).where(Group.state == "open")) or 0


if __name__ == "__main__":
    opened = Database.open(sys.argv[1])
    people = [Person(opened, f"{sys.argv[2]}.{n}") for n in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(each.run) for each in people]:
            done.result()
    opened.close()
