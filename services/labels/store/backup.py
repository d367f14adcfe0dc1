"""A copy of the SQLite database while it is in use, with what it takes to trust the copy later.

Images are files named by their digest: copy their folder afterwards, with any tool.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from services.run_store.files import write_whole

FORMAT = 1


def backup(database_url: str, destination: Path) -> dict[str, Any]:
    """Copy a live database to one file; its manifest lies beside it, and is returned.

    The manifest: format, sha256 and num_bytes of the file, revision of the tables, rows of each.
    """
    source = _file(database_url)
    if not source.exists():
        raise FileNotFoundError(f"no database at {source}; name another (--data, --database-url)")
    _refuse_existing(destination)
    _refuse_existing(_manifest(destination))
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _whole(destination) as copy:
        with _open(source) as live, closing(sqlite3.connect(copy)) as target:
            live.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        manifest = {"format": FORMAT, **_file_facts(copy), **_content_facts(copy)}
    content = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    write_whole(_manifest(destination), content.encode(), durable=True)
    return manifest


def restore(source: Path, database_url: str, verify: bool = True) -> dict[str, Any]:
    """Put a backup where no database is; give its manifest. `verify` holds the copy against it.

    ValueError: the file is not what was backed up; nothing has been put in place then.
    """
    destination = _file(database_url)
    for beside in ("", "-wal", "-shm"):
        _refuse_existing(destination.with_name(destination.name + beside))
    manifest = json.loads(_manifest(source).read_text())
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{_manifest(source)} has format {manifest.get('format')!r}; this tdm-r1 reads {FORMAT}"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _whole(destination) as copy:
        shutil.copyfile(source, copy)
        if verify:
            _verify(source, copy, manifest)
    return manifest


def _verify(source: Path, copy: Path, manifest: dict[str, Any]) -> None:
    for facts in (_file_facts, _content_facts):  # a damaged file may not even open
        for name, value in facts(copy).items():
            if manifest[name] != value:
                raise ValueError(
                    f"{source} is not what was backed up: {name} is {value}, the manifest says "
                    f"{manifest[name]}; use another backup"
                )


def _file(database_url: str) -> Path:
    address = make_url(database_url)
    if address.drivername.startswith("postgresql"):
        raise ValueError(
            "PostgreSQL has its own tools, which know more: pg_dump --format=custom, pg_restore"
        )
    if address.drivername != "sqlite" or not address.database:
        raise ValueError(f"{address.render_as_string()} is no SQLite file; use sqlite:///PATH")
    return Path(address.database)


def _manifest(backup: Path) -> Path:
    return backup.with_name(backup.name + ".manifest.json")


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"{path} exists and is not overwritten; move it away, or name another"
        )


@contextmanager
def _whole(destination: Path) -> Iterator[Path]:
    """A file to fill; afterwards it is on the disk under its name, or gone."""
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.link(temporary, destination)  # unlike a rename, it never replaces
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def _file_facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "num_bytes": path.stat().st_size}


def _content_facts(path: Path) -> dict[str, Any]:
    with _open(path) as connection:
        health = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if health != "ok":
            raise ValueError(f"{path} is damaged: {health}; use another backup")
        names = connection.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'"
        )
        rows = {
            name: connection.execute(f'select count(*) from "{name}"').fetchone()[0]
            for (name,) in sorted(names)
        }
        revision = connection.execute("select version_num from alembic_version").fetchone()[0]
    return {"revision": revision, "rows": rows}
