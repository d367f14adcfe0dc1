"""A backup is taken while people write, and is trusted only after it was held against its words."""

import json
import threading
from pathlib import Path

import pytest

from services.labels.store.backup import backup, restore
from services.labels.store.database import Database
from services.labels.store.tables import Table
from tests.labels.filling import fill
from tests.labels.test_database import ask, ids

pytestmark = pytest.mark.integration


@pytest.fixture
def live(sqlite_url: str):
    database = Database.open(sqlite_url)
    database.write_now(fill)
    yield database
    database.close()


@pytest.fixture
def saved(live: Database, sqlite_url: str, tmp_path: Path) -> Path:
    path = tmp_path / "saved" / "labels.backup"
    backup(sqlite_url, path)
    return path


def test_what_was_backed_up_comes_back(live: Database, saved: Path, tmp_path: Path):
    live.write_now(lambda session: ask(session, "after the backup"))
    url = f"sqlite:///{tmp_path}/elsewhere/labels.db"
    manifest = restore(saved, url)
    assert manifest["rows"] == {t.name: 1 for t in Table.metadata.sorted_tables} | {
        "alembic_version": 1
    }
    restored = Database.open(url)
    assert restored.read_now(ids) == ["x"]
    restored.close()


def test_a_backup_while_people_write_is_one_moment(live: Database, sqlite_url: str, tmp_path: Path):
    done = threading.Event()

    def people():
        for n in range(10_000):
            if done.is_set():
                return
            live.write_now(
                lambda session, n=n: (ask(session, f"{n:05d}a"), ask(session, f"{n:05d}b"))
            )

    thread = threading.Thread(target=people)
    thread.start()
    try:
        for n in range(5):
            path = tmp_path / f"{n}.backup"
            backup(sqlite_url, path)
            restore(path, f"sqlite:///{tmp_path}/{n}.db")
            copy = Database.open(f"sqlite:///{tmp_path}/{n}.db")
            found = [id for id in copy.read_now(ids) if id != "x"]
            copy.close()
            assert found == [f"{n:05d}{side}" for n in range(len(found) // 2) for side in "ab"]
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("damage", [b"", b"not a database", None], ids=["empty", "other", "a byte"])
def test_a_damaged_backup_is_not_put_in_place(saved: Path, tmp_path: Path, damage: bytes | None):
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content if damage is None else damage)
    with pytest.raises(ValueError, match="not what was backed up: sha256"):
        restore(saved, f"sqlite:///{tmp_path}/other/labels.db")
    assert list((tmp_path / "other").iterdir()) == []


def test_counts_that_differ_are_noticed(saved: Path, tmp_path: Path):
    path = saved.with_name("labels.backup.manifest.json")
    manifest = json.loads(path.read_text())
    manifest["rows"]["labels"] = 2
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="not what was backed up: rows"):
        restore(saved, f"sqlite:///{tmp_path}/other.db")


def test_nothing_is_overwritten(saved: Path, sqlite_url: str, tmp_path: Path):
    with pytest.raises(FileExistsError, match="is not overwritten"):
        backup(sqlite_url, saved)
    with pytest.raises(FileExistsError, match="is not overwritten"):
        restore(saved, sqlite_url)
    (tmp_path / "x.db-wal").touch()
    with pytest.raises(FileExistsError, match=r"x\.db-wal exists"):
        restore(saved, f"sqlite:///{tmp_path}/x.db")


def test_errors_say_what_to_do(tmp_path: Path):
    with pytest.raises(ValueError, match="pg_dump"):
        backup("postgresql+psycopg://tdm@host/labels", tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no database at"):
        backup(f"sqlite:///{tmp_path}/none.db", tmp_path / "x")
