"""Several processes over one database make an export as if they were one."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.exporter import Exporter
from services.labels.exports import write_export
from services.labels.store.database import Database
from services.labels.store.tables import Export
from tests.labels.labelling_cases import START, World
from tests.labels.people import SettableClock

pytestmark = pytest.mark.integration


class Late:
    """The database of a process that is held up before it can tell; meanwhile a label comes and
    another process makes the export too."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.read, self.look = database.read, database.look
        self._database, self._folder = database, folder

    async def write(self, operation: Any) -> Any:
        self._database.write_now(lambda session: label(session, "late"))
        assert await Exporter(self._database, self._folder, SettableClock()).make_next()
        return await self._database.write(operation)


def label(session: Session, name: str) -> None:
    here = World(session)
    here.label(name, here.group(name, 1), "l")


def export_of(session: Session) -> Export:
    return session.scalars(select(Export)).one()


def ask(session: Session) -> None:
    session.add(Export(id="e", format="jsonl", filters={}, created_at=START))


def test_a_file_and_its_manifest_are_of_one_process(database: Database, tmp_path: Path) -> None:
    database.write_now(lambda session: label(session, "early"))
    database.write_now(ask)
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "labels.jsonl.0123.part").write_text("what a crash has left")
    late: Any = Late(database, tmp_path)
    assert asyncio.run(Exporter(late, tmp_path, SettableClock()).make_next())
    export = database.read_now(export_of)
    content = (folder / "labels.jsonl").read_bytes()
    assert (export.state, export.error) == ("done", None)
    assert export.manifest is not None
    assert export.manifest["num_rows"] == len(content.splitlines())
    assert export.manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert json.loads((folder / "manifest.json").read_bytes()) == export.manifest
    assert {path.name for path in folder.iterdir()} == {"labels.jsonl", "manifest.json"}


def test_what_was_published_and_not_committed_is_published_again(
    database: Database, tmp_path: Path
) -> None:
    database.write_now(lambda session: label(session, "early"))
    database.write_now(ask)
    drafts = [
        database.read_now(lambda s: write_export(s, export_of(s), tmp_path / "e", START))
        for _ in range(2)
    ]
    assert [drafts[0].publish(), drafts[0].publish(), drafts[1].publish()] == [True] * 3
    database.write_now(lambda session: label(session, "late"))
    other = database.read_now(lambda s: write_export(s, export_of(s), tmp_path / "e", START))
    assert other.publish()
    assert not drafts[1].publish()
