"""What admins see of the label service and change there, in its database here or over the service
itself where it runs elsewhere.

As of a label source: ValueError says what helps; ask it in a thread.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Protocol

from services.dashboard.label_source import Answers, said
from services.label_client.client import LabelClient
from services.label_client.models import AuditRecord
from services.labels.audit import AuditFilter, key_names, read_audit
from services.labels.store.database import Database
from services.web.pagination import Page, encode_cursor

AuditLog = Callable[[AuditFilter, tuple[datetime, int] | None, int], list[AuditRecord]]
"""Some newest entries of a log that are wanted; none but those behind the time and `seq` of one."""


class LabelAdmin(Protocol):
    """Asked for admins alone."""

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """Audit logs by whose they are."""
        ...

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """Names of those who are keys of this dashboard."""
        ...


class AdminDatabase:
    """The database of a service on this machine, where this dashboard's keys are too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """One."""
        return {"labels": self.audit}

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """As they are now."""
        wanted = set(actors)
        with said():
            return self._database.read_now(lambda session: key_names(session, wanted))

    def audit(
        self, wanted: AuditFilter, after: tuple[datetime, int] | None, limit: int
    ) -> list[AuditRecord]:
        """Its audit log."""
        with said():
            found, *_ = self._database.read_now(
                lambda session: read_audit(session, Page(limit, after), wanted)
            )
        return [AuditRecord.model_validate(each.model_dump()) for each in found]


class AdminService:
    """A service elsewhere, asked with a key of this dashboard, whose name its audit log has. The
    dashboard's own keys are in its `own` database."""

    def __init__(self, url: str, client: LabelClient, own: AdminDatabase) -> None:
        self._url, self._client, self._own = url, client, own
        self._answers = Answers()

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """The service's, and that of who may sign in here."""
        return {self._url: self.audit, "this dashboard": self._own.audit}

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """Those of who may sign in here."""
        return self._own.names(actors)

    def audit(
        self, wanted: AuditFilter, after: tuple[datetime, int] | None, limit: int
    ) -> list[AuditRecord]:
        """The service's audit log."""

        def ask() -> list[AuditRecord]:
            cursor = encode_cursor(*after) if after else None
            with said(self._url, "admin"):
                return self._client.audit(limit, cursor, **vars(wanted))[0]

        return self._answers.get((wanted, after, limit), ask)
