"""Tables and migrations agree, in both directions, with rows in every table."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, func, inspect, select, text
from sqlalchemy.orm import Session

from services.labels.audit import record_audit
from services.labels.retention import find, withdraw
from services.labels.store.database import Database
from services.labels.store.migrations.upgrade import configure, upgrade
from services.labels.store.tables import Annotator, Assignment, Group, Image, Table
from tests.labels.filling import fill
from tests.labels.labelling_cases import World
from tests.labels.postgresql import create_database, drop_database

pytestmark = pytest.mark.integration


@pytest.fixture(params=["sqlite", "postgresql"])
def scratch_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the test's own, without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/scratch.db"
        return
    server = request.getfixturevalue("postgresql_server")
    yield create_database(server, "scratch")
    drop_database(server, "scratch")


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), Table.metadata)


def test_the_migrations_make_the_tables_that_the_code_has(database_url: str):
    engine = create_engine(database_url)
    assert differences(engine) == []
    engine.dispose()


def test_every_migration_goes_down_and_up_again_under_rows(scratch_url: str):
    database = Database.open(scratch_url)
    database.write_now(fill)
    database.close()
    engine = create_engine(scratch_url)
    with engine.connect() as connection:
        scripts = list(ScriptDirectory.from_config(configure(connection)).walk_revisions())
    for script in scripts:
        with engine.begin() as connection:
            command.downgrade(configure(connection), str(script.down_revision or "base"))
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(engine)
    assert differences(engine) == []
    engine.dispose()
    again = Database.open(scratch_url)
    again.write_now(fill)
    again.close()


def test_what_older_tables_did_not_say_is_found_out(scratch_url: str):
    def work(session: Session) -> None:
        here = World(session)
        images = here.group("g", 3, overlap=2)
        for person, values in (("ann", "ll-"), ("bob", "s--"), ("cem", "d--")):
            here.label(person, images, values)
        here.person("spam")
        session.get_one(Annotator, "spam").weight = 0
        here.label("spam", images, "lll")
        here.claim("ann")
        session.get_one(Image, here.image("old")).removed_at = here.now
        withdraw(session, find(session, here.image("bad")), here.now, here.settings)
        record_audit(session, "admin", "image.remove", here.image("bad"), None, None, here.now)

    def told(session: Session) -> tuple[int, int, list[str]]:
        group, lease = session.scalars(select(Group)).one(), session.scalars(select(Assignment))
        withdrawn = session.scalars(select(Image.sha256).where(Image.withdrawn))
        return group.num_answers, lease.one().num_unanswered, list(withdrawn)

    bad = hashlib.sha256(b"bad").hexdigest()
    database = Database.open(scratch_url)
    database.write_now(work)
    assert database.read_now(told) == (3, 1, [bad])
    database.close()
    engine = create_engine(scratch_url)
    with engine.begin() as connection:
        command.downgrade(configure(connection), "0003")
    engine.dispose()
    database = Database.open(scratch_url)
    assert database.read_now(told) == (3, 3, [bad])  # a lease of then was of the whole group
    database.close()


def test_opening_twice_changes_nothing(database_url: str):
    database = Database.open(database_url)
    database.write_now(fill)
    database.close()
    again = Database.open(database_url)
    for table in Table.metadata.sorted_tables:
        assert again.read_now(lambda s, t=table: s.scalar(select(func.count()).select_from(t))) == 1
    again.close()


def test_tables_of_a_newer_version_are_refused_and_left_alone(scratch_url: str):
    Database.open(scratch_url).close()
    engine = create_engine(scratch_url)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(ValueError, match="revision 9999, which this tdm-r1 does not know"):
        Database.open(scratch_url)
    with engine.connect() as connection:
        assert connection.scalar(text("select version_num from alembic_version")) == "9999"
    engine.dispose()
