"""Brings a database's tables up to date when it is opened."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from services.labels.store.faults import StoreMissing

LOCK = 7_426_113
"""Names our migrations among PostgreSQL's advisory locks: two services may start at once."""


def upgrade(engine: Engine, make: bool = True) -> None:
    """Apply what is missing, all or nothing; ValueError if the tables are newer than we are,
    StoreMissing if there are none and none are to be made."""
    with engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            # A table is altered by copying it, and its references must not mind. The setting
            # works outside of transactions only, and this connection is not used again.
            connection.detach()
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
        else:
            connection.execution_options(isolation_level="SERIALIZABLE")  # whatever the engine's is
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            _to_newest(connection, make)


def _to_newest(connection: Connection, make: bool) -> None:
    config = configure(connection)
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    current = MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return
    if current is None and not make:
        raise StoreMissing
    if current is not None and current not in {s.revision for s in scripts.walk_revisions()}:
        raise ValueError(
            f"the database is at revision {current}, which this tdm-r1 does not know (its newest "
            f"is {newest}); a newer one has written it: install that one, or restore a backup"
        )
    command.upgrade(config, "head")


def configure(connection: Connection) -> Config:
    """For Alembic's commands, within the connection's transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
