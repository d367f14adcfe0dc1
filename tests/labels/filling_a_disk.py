"""Fills a small disk, makes room again, makes it read-only, and says what it saw, as JSON.

`python -m tests.labels.filling_a_disk FOLDER`: FOLDER is a disk of its own, of a few MB.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.store.tables import Question


def write(database: Database, id: str) -> None:
    """A row of some pages."""
    row = Question(id=id, text="?" * 20_000, created_at=datetime.now(UTC))
    database.write_now(lambda session: session.add(row))


def refusal(database: Database, id: str) -> str:
    """Why `write` cannot; empty if it can."""
    try:
        write(database, id)
    except StoreUnavailable as error:
        return str(error)
    return ""


def ids(session: Session) -> set[str]:
    """All there are."""
    return set(session.scalars(select(Question.id)))


def fill_and_recover(folder: Path) -> dict[str, object]:
    """What was acknowledged and refused, and what of it was there while full and afterwards."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(1_000_000))
    url = f"sqlite:///{folder}/labels.db"
    database = Database.open(url)
    acknowledged = set[str]()
    while not (refused := refusal(database, str(len(acknowledged)))):
        acknowledged.add(str(len(acknowledged)))
    seen = {"refusals": [refused, refusal(database, "again")]}
    seen |= {"all_found_while_full": database.read_now(ids) == acknowledged}
    ballast.unlink()
    write(database, "later")
    database.close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    read_only = Database.open(url)
    seen |= {
        "all_found_while_read_only": read_only.read_now(ids) == acknowledged | {"later"},
        "refusal_while_read_only": refusal(read_only, "last"),
        "num_acknowledged": len(acknowledged),
    }
    read_only.close()
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(fill_and_recover(Path(sys.argv[1]))))
