"""The label database, opened for a command and closed behind it."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from services.commands.console import note
from services.labels.settings import Settings
from services.labels.store.database import Database
from services.labels.store.faults import StoreMissing, StoreUnavailable


@contextmanager
def opened(settings: Settings, make: bool = True) -> Iterator[Database]:
    """The database that the settings name, which is made unless it is there or `make` is false,
    and not in silence; ValueError where it is not to be had."""
    os.umask(0o077)  # What is written here is people's, and nobody else's on this machine.
    # Its URL may hold a password.
    where = "database_url" if settings.database_url else settings.data_dir
    try:
        with closing(_found_or_made(settings, make, str(where))) as database:
            yield database
    except StoreMissing as error:
        remedy = "name another (--data, --database-url), or make it: tdm-r1 keys create"
        raise ValueError(f"{where}: {error}; {remedy}") from error
    except StoreUnavailable as error:
        remedy = "see that it can be written and has room, or name another (--data, --database-url)"
        raise ValueError(f"{where}: {error}; {remedy}") from error


def _found_or_made(settings: Settings, make: bool, where: str) -> Database:
    try:
        return Database.open(settings.url, make=False)
    except StoreMissing:
        if not make:
            raise
    made = Database.open(settings.url)
    note(f"{where}: no label database was there; a new one is made, without keys and labels")
    return made
