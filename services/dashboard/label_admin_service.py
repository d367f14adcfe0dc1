"""The label service as admins have it where it runs elsewhere, asked with a key of this dashboard.

Its audit log names that key. Who had it asked is in the audit log of the dashboard's own database,
as are the keys by which people sign in here.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from services.dashboard.label_admin import AuditLog, state_of
from services.dashboard.label_admin_database import AdminDatabase
from services.dashboard.label_source import Answers, Found, said
from services.label_client.client import LabelClient
from services.label_client.models import AuditRecord, CreatedKey, Invite, Key
from services.labels.audit import AuditFilter
from services.labels.schemas.keys import NewKey
from services.web.auth import Principal
from services.web.clock import Clock
from services.web.keys import Role, check_grant, parse_key
from services.web.pagination import encode_cursor

ROLE = "admin"
"""What the dashboard's key has to be there."""

log = logging.getLogger(__name__)


class AdminService:
    """Over the client. Whatever an admin has done there is in two audit logs."""

    def __init__(
        self, url: str, key: str, client: LabelClient, own: AdminDatabase, clock: Clock
    ) -> None:
        """`key` is the one that the client asks with."""
        self.elsewhere = url.rstrip("/")
        self.own_key_id = (parse_key(key) or (None,))[0]
        self._client, self._own, self._clock = client, own, clock
        self._answers = Answers()

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """The service's, and that of who may sign in here."""
        return {self.elsewhere: self.audit, "this dashboard": self._own.audit}

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """Those of who may sign in here."""
        return self._own.names(actors)

    def audit(
        self, wanted: AuditFilter, after: tuple[datetime, int] | None, limit: int
    ) -> list[AuditRecord]:
        """The service's audit log."""
        cursor = encode_cursor(*after) if after else None
        return self._look(
            ("audit", wanted, after, limit),
            lambda: self._client.audit(limit, cursor, **vars(wanted))[0],
        )

    def keys(
        self, role: Role | None, cursor: str | None, limit: int
    ) -> tuple[list[Key], str | None]:
        """The service's keys."""
        asked = ("keys", role, cursor, limit)
        return self._look(asked, lambda: self._client.keys(limit, cursor, role))

    def live_admins(self) -> set[str]:
        """As they are now, by the clock of this machine."""
        now = self._clock()
        with said(self.elsewhere, ROLE):
            found = self._client.pages("/api-keys", role="admin")
            keys = [Key.model_validate(each) for each in found]
        return {key.key_id for key in keys if state_of(key, now) == "active"}

    def create_key(self, new: NewKey, by: Principal) -> CreatedKey:
        """The service's; what it would not take is not sent."""
        who = new.annotator_id
        with self._changing():
            if new.role == "annotator" and who is None:
                check_grant(new.role, new.scopes, "a new person")
                who = self._client.create_annotator(new.name)
                self._note(by, "annotator.create", f"annotators/{who}")
            made = self._client.create_key(
                new.name,
                new.role,
                scopes=new.scopes,
                annotator_id=who,
                expires_in_days=new.expires_in_days,
            )
            self._note(by, "key.create", f"api-keys/{made.key_id}")
        return made

    def revoke_key(self, key_id: str, by: Principal) -> None:
        """One of the service's."""
        with self._changing():
            self._client.revoke_key(key_id)
            self._note(by, "key.revoke", f"api-keys/{key_id}")

    def invite(self, name: str, role: str, by: Principal) -> Invite:
        """The link is under the service's address."""
        with self._changing():
            who = self._client.create_annotator(name)
            self._note(by, "annotator.create", f"annotators/{who}")
            made = self._client.invite(who, role)
            self._note(by, "invite.create", f"annotators/{who}")
        return made.model_copy(update={"url": made.url and self.elsewhere + made.url})

    def _look(self, asked: Hashable, ask: Callable[[], Found]) -> Found:
        def refused_or_found() -> Found:
            with said(self.elsewhere, ROLE):
                return ask()

        return self._answers.get(asked, refused_or_found)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Whoever looks next sees it."""
        try:
            with said(self.elsewhere, ROLE):
                yield
        finally:
            self._answers.forget()

    def _note(self, by: Principal, action: str, what: str) -> None:
        try:
            self._own.note(by, action, f"{self.elsewhere}/{what}")
        except ValueError as fault:  # it is done, and a key's text must not get lost for that
            log.warning("%s of %s by %s is not noted here: %s", action, what, by.actor, fault)
