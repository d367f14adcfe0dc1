"""A process that a test starts and kills: people write, and it names what was acknowledged.

`python -m tests.labels.writing_people URL NAME`: one line on stdout for each row after its commit.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.tables import Question

PEOPLE = 20


async def write_until_killed(database: Database, name: str) -> None:
    """Each person writes one row after another; a tenth of the operations fail."""

    async def person(number: int) -> None:
        for n in range(1_000_000):
            id = f"{name}-{number}-{n}"

            def operation(session: Session, id: str = id, n: int = n) -> None:
                session.add(Question(id=id, text="?", created_at=datetime.now(UTC)))
                if n % 10 == 9:
                    session.flush()
                    raise LookupError(id)

            try:
                await database.write(operation)
            except LookupError:
                continue
            os.write(1, f"{id}\n".encode())  # one call, no buffer: whole lines or none

    await asyncio.gather(*(person(number) for number in range(PEOPLE)))


if __name__ == "__main__":
    asyncio.run(write_until_killed(Database.open(sys.argv[1]), sys.argv[2]))
