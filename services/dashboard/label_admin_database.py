"""The label service as admins have it where its database is on this machine, with this dashboard's
own keys."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from services.dashboard.label_admin import AuditLog
from services.dashboard.label_source import said
from services.label_client.models import AuditRecord, CreatedKey, Invite, Key
from services.labels import api_keys
from services.labels.annotators import create_annotator
from services.labels.audit import AuditFilter, key_names, read_audit, record_audit
from services.labels.schemas.keys import KeyView, NewKey
from services.labels.sessions import create_invite
from services.labels.store.database import Database
from services.web.auth import Principal
from services.web.clock import Clock
from services.web.keys import Role
from services.web.pagination import Page, decode_cursor


class AdminDatabase:
    """Straight in the database, whether or not the service runs."""

    elsewhere = ""
    own_key_id = None

    def __init__(self, database: Database, clock: Clock, address: str) -> None:
        """`address` is the service's, for links."""
        self._database, self._clock, self._address = database, clock, address

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

    def keys(
        self, role: Role | None, cursor: str | None, limit: int
    ) -> tuple[list[Key], str | None]:
        """Those in it."""
        with said():
            page = Page(limit, decode_cursor(cursor) if cursor else None)
            rows, after, _ = self._database.read_now(
                lambda session: api_keys.read_keys(session, page, role)
            )
        return [Key.model_validate(KeyView.of(row).model_dump()) for row in rows], after

    def live_admins(self) -> set[str]:
        """As it is now."""
        now = self._clock()
        with said():
            return self._database.read_now(lambda session: api_keys.live_admins(session, now))

    def create_key(self, new: NewKey, by: Principal) -> CreatedKey:
        """Its row and its person's are there once this returns, or neither."""

        def operation(session: Any, now: datetime) -> CreatedKey:
            who = new.annotator_id
            if new.role == "annotator" and who is None:
                who = create_annotator(session, new.name, now, by).id
            days = new.expires_in_days
            row, text = api_keys.create_key(
                session, new.name, new.role, now, by, new.scopes, who, days
            )
            return CreatedKey.model_validate(KeyView.of(row).model_dump() | {"key": text})

        return self._write(operation)

    def revoke_key(self, key_id: str, by: Principal) -> None:
        """Nobody can use it from here on."""

        def operation(session: Any, now: datetime) -> None:
            row = api_keys.find_key(session, key_id)
            if row is None:
                raise ValueError(f"there is no key {key_id!r} (any more)")
            api_keys.revoke_key(session, row, now, by)

        self._write(operation)

    def invite(self, name: str, role: str, by: Principal) -> Invite:
        """The link is under the service's address."""

        def operation(session: Any, now: datetime) -> Invite:
            person = create_annotator(session, name, now, by).id
            made, secret = create_invite(session, person, role, now, by)
            url = f"{self._address}/login#invite={secret}"
            return Invite(url=url, expires_at=made.expires_at)

        return self._write(operation)

    def note(self, by: Principal, action: str, object: str) -> None:
        """Write down who had something done elsewhere."""
        self._write(lambda session, now: record_audit(session, by, action, object, None, None, now))

    def _write(self, operation: Callable[[Any, datetime], Any]) -> Any:
        now = self._clock()
        with said():
            return self._database.write_now(lambda session: operation(session, now))
