"""A PostgreSQL server of our own for one test session: fast, private, and gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from services.labels.store.tables import Table

# The tests kill our processes, never the machine: nothing is lost without flushing.
FAST = "-c fsync=off -c full_page_writes=off -c max_connections=200"


def find_binaries() -> Path | None:
    """Where initdb and pg_ctl are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    return None if newest is None else newest.parent


@contextmanager
def run_server(binaries: Path) -> Iterator[str]:
    """A server that listens on a socket in a folder of its own; gives the URL of its postgres."""
    folder = Path(tempfile.mkdtemp(prefix="tdmr1-pg-"))  # short: a socket's path has 107 bytes
    person = _unprivileged(folder)
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "--pgdata", str(data), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, **person)
        assert run.returncode == 0, run.stdout + run.stderr

    try:
        call("initdb", "--username=tdm", "--auth=trust", "--no-sync", "--encoding=UTF8")
        options = f"-k {folder} -c listen_addresses='' {FAST}"
        call("pg_ctl", "start", "--wait", f"--log={folder}/log", "--options", options)
        try:
            yield f"postgresql+psycopg://tdm@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "--mode=immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> dict[str, int]:
    """PostgreSQL refuses to run as root: then the folder is somebody else's, and so is it."""
    if os.getuid() != 0:
        return {}
    names = [entry.pw_name for entry in pwd.getpwall()]
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def create_database(server: str, name: str, options: str = "") -> str:
    """Its URL."""
    _execute(server, f"create database {name} {options}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def drop_database(server: str, name: str) -> None:
    """Whoever still uses it."""
    _execute(server, f"drop database {name} with (force)")


_TABLES = Table.metadata.sorted_tables
NUMBERS_BEGIN_AGAIN = "; ".join(
    f"alter sequence {table.name}_seq_seq restart"
    for table in _TABLES
    if "seq" in table.primary_key.columns
)
"""A transaction that is rolled back leaves them as they were."""


def empty_database(url: str) -> None:
    """Take away every row, and whoever the test has left connected; numbers begin again."""
    _execute(
        url,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()",
        "set session_replication_role = replica",  # references need no order
        *(f"delete from {table.name}" for table in _TABLES),
        NUMBERS_BEGIN_AGAIN,
    )


def _execute(url: str, *statements: str) -> None:
    address = make_url(url)
    with psycopg.connect(
        host=str(address.query["host"]),
        user=address.username,
        dbname=address.database,
        autocommit=True,
    ) as connection:
        connection.execute("; ".join(statements))
