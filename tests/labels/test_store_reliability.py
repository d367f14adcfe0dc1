"""What was acknowledged is there: after kill -9, torn writes, a full disk, a lost connection."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from tests.labels.test_database import ask, ids

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
ROUNDS = 2


def test_every_acknowledged_row_survives_kill_9(database_url: str):
    acknowledged = []
    for n in range(ROUNDS):
        # Somewhere in the first few hundred commits, wherever that is within one.
        acknowledged += write_and_kill(database_url, f"round{n}", random.randint(1, 400))
    database = Database.open(database_url)
    present = set(database.read_now(ids))
    database.close()
    assert set(acknowledged) <= present
    assert [id for id in present if id.endswith("9")] == []  # taken back, not half written


def write_and_kill(url: str, name: str, num_lines: int) -> list[str]:
    """The ids that the process named before it died, which is after `num_lines` of them."""
    command = [sys.executable, "-m", "tests.labels.writing_people", url, name]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(num_lines)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return [line.decode().strip() for line in lines if line.endswith(b"\n")]


@pytest.mark.parametrize("torn", ["half a page", "noise", "nothing"])
def test_a_torn_write_at_the_end_of_the_log_costs_nothing(
    sqlite_url: str, tmp_path: Path, torn: str
):
    database = Database.open(sqlite_url)
    kept = [database.write_now(lambda s, n=n: ask(s, f"{n:02d}")) for n in range(20)]
    crashed = tmp_path / "crashed.db"
    for end in ("", "-wal"):  # as they lie there when the power goes
        shutil.copyfile(f"{tmp_path}/labels.db{end}", f"{crashed}{end}")
    database.close()
    log = Path(f"{crashed}-wal")
    assert log.stat().st_size > 0
    with log.open("ab") as file:
        file.write(
            {"half a page": log.read_bytes()[-2000:], "noise": b"\xa5" * 9000}.get(torn, b"")
        )
    again = Database.open(f"sqlite:///{crashed}")
    assert again.read_now(ids) == kept
    assert again.write_now(lambda session: ask(session, "next")) == "next"
    again.close()


def test_a_full_disk_refuses_and_recovers_and_a_read_only_one_refuses(tmp_path: Path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=4m tmpfs '{folder}'"
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*own, mount], capture_output=True).returncode:
        pytest.skip("no small disk: this machine lets nobody mount one")
    child = f"{mount} && exec '{sys.executable}' -m tests.labels.filling_a_disk '{folder}'"
    run = subprocess.run([*own, child], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    seen = json.loads(run.stdout)
    assert seen["num_acknowledged"] > 10
    assert all("the disk is full" in refusal for refusal in seen["refusals"])
    assert seen["all_found_while_full"]
    assert seen["all_found_while_read_only"]
    assert "the database is read-only" in seen["refusal_while_read_only"]


def test_a_database_at_its_limit_refuses_and_recovers(sqlite_url: str):
    """As above, for machines that let nobody mount a disk; and with a batch that shares the end."""
    database = Database.open(sqlite_url)
    limit = database.read_now(lambda session: session.scalar(text("PRAGMA page_count")))

    def fill(session: Session) -> None:
        session.execute(text(f"PRAGMA max_page_count={limit}"))  # this connection's alone
        for n in range(100):
            try:
                ask(session, f"{n}" * 1000)
                session.flush()
            except StoreUnavailable:
                continue  # heedless: it must not write outside of its transaction either

    database.write_now(lambda session: ask(session, "before"))
    with pytest.raises(StoreUnavailable):
        database.write_now(fill)
    assert database.read_now(ids) == ["before"]
    assert database.write_now(lambda session: ask(session, "later")) == "later"
    assert database.read_now(ids) == ["before", "later"]
    database.close()


def test_another_process_that_holds_the_file_for_long_is_busy_and_no_loss(sqlite_url: str):
    database, other = Database.open(sqlite_url), Database.open(sqlite_url)

    def hold(session: Session) -> None:
        ask(session, "theirs")
        session.flush()
        with pytest.raises(StoreUnavailable, match="another process holds the database"):
            database.write_now(lambda mine: ask(mine, "ours"))

    other.write_now(hold)
    assert database.write_now(lambda session: ask(session, "ours")) == "ours"
    assert database.read_now(ids) == ["ours", "theirs"]
    database.close()
    other.close()


def test_a_read_only_file_refuses_to_write_and_still_reads(sqlite_url: str):
    database = Database.open(sqlite_url)
    database.write_now(lambda session: ask(session, "before"))

    def read_only(session: Session) -> None:
        session.execute(text("PRAGMA query_only=ON"))  # root may write to any file
        ask(session, "lost")

    with pytest.raises(StoreUnavailable, match="the database is read-only"):
        database.write_now(read_only)
    assert database.read_now(ids) == ["before"]
    database.close()


def test_postgresql_that_is_read_only_refuses_to_write_and_still_reads(postgresql_url: str):
    database = Database.open(postgresql_url)

    def read_only(session: Session) -> None:
        session.execute(text("set transaction read only"))
        ask(session, "lost")

    database.write_now(lambda session: ask(session, "before"))
    with pytest.raises(StoreUnavailable, match="read-only"):
        database.write_now(read_only)
    assert database.read_now(ids) == ["before"]
    assert database.write_now(lambda session: ask(session, "later")) == "later"
    database.close()


def test_who_goes_on_after_a_refusal_is_not_told_that_it_is_stored(postgresql_url: str):
    database = Database.open(postgresql_url)

    def heedless(session: Session) -> str:
        ask(session, "lost")
        session.flush()
        with suppress(ProgrammingError):
            session.execute(text("select * from nowhere"))
        return "stored"

    with pytest.raises(RuntimeError, match="nobody heeded"):
        database.write_now(heedless)
    assert database.write_now(lambda session: ask(session, "later")) == "later"
    assert database.read_now(ids) == ["later"]
    database.close()


def test_a_lost_connection_is_said_and_the_next_one_works(postgresql_url: str):
    database = Database.open(postgresql_url)

    def cut(session: Session) -> None:
        ask(session, "lost")
        session.flush()
        session.execute(text("select pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreUnavailable, match="PostgreSQL is going down"):
        database.write_now(cut)
    assert database.write_now(lambda session: ask(session, "later")) == "later"
    everybody = (
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
    )
    database.read_now(lambda session: session.execute(text(everybody)))
    assert database.write_now(lambda session: ask(session, "last")) == "last"
    assert database.read_now(ids) == ["last", "later"]
    database.close()


def test_nobody_there_is_unavailable_and_not_a_traceback_of_theirs(tmp_path: Path):
    with pytest.raises(StoreUnavailable, match="connection to PostgreSQL is lost"):
        Database.open(f"postgresql+psycopg://tdm@/labels?host={tmp_path}")
    (tmp_path / "other.db").write_bytes(b"something else altogether" * 100)
    with pytest.raises(StoreUnavailable, match="is no database"):
        Database.open(f"sqlite:///{tmp_path}/other.db")
