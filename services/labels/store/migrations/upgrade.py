"""Brings a database's tables up to date when it is opened."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

LOCK = 7_426_113
"""Names our migrations among PostgreSQL's advisory locks: two services may start at once."""


def upgrade(engine: Engine) -> None:
    """Apply what is missing, all or nothing; ValueError if the tables are newer than we are."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        migrate(connection)


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to `revision`, older or newer, within the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = [script.revision for script in scripts.walk_revisions()]
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise ValueError(
            f"the database is at revision {current}, which this tdm-r1 does not know (its newest "
            f"is {known[0]}); a newer one has written it: install that one, or restore a backup"
        )
    target = scripts.as_revision_number(revision)
    if current == target:
        return
    newer = target is None or (current is not None and known.index(target) > known.index(current))
    (command.downgrade if newer else command.upgrade)(config, revision)
