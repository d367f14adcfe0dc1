"""What Alembic runs: on the connection that it is handed, or on the URL of `-x url=...`."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine

from services.labels.store.tables import Table, UtcDateTime


def render(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration outlives our types: it names the database's."""
    is_time = kind == "type" and isinstance(item, UtcDateTime)
    return "sa.DateTime(timezone=True)" if is_time else False


def run(connection: Connection) -> None:
    """Migrate in the connection's transaction; SQLite alters a table by copying it."""
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=True,
        transactional_ddl=True,
        render_item=render,
    )
    with context.begin_transaction():
        context.run_migrations()


handed = context.config.attributes.get("connection")
if handed is not None:
    run(handed)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as connection:
        run(connection)
