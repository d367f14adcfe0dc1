"""What admins see of the label service and change there: audit logs, keys, invites.

As of a label source: ValueError says what helps; ask it in a thread.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Literal, Protocol

from services.label_client.models import AuditRecord, CreatedKey, Invite, Key
from services.labels.audit import AuditFilter
from services.labels.schemas.keys import NewKey
from services.web.auth import Principal
from services.web.keys import Role

AuditLog = Callable[[AuditFilter, tuple[datetime, int] | None, int], list[AuditRecord]]
"""Some newest entries of a log that are wanted; none but those behind the time and `seq` of one."""


class LabelAdmin(Protocol):
    """Asked for admins alone; who they are is said with every change."""

    @property
    def elsewhere(self) -> str:
        """The service's address where its keys are not this dashboard's."""
        ...

    @property
    def own_key_id(self) -> str | None:
        """The key that this dashboard asks the service with."""
        ...

    @property
    def logs(self) -> Mapping[str, AuditLog]:
        """Audit logs by whose they are."""
        ...

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """Names of those who are keys of this dashboard."""
        ...

    def keys(
        self, role: Role | None, cursor: str | None, limit: int
    ) -> tuple[list[Key], str | None]:
        """A page of keys, newest first, and where the next one begins."""
        ...

    def live_admins(self) -> set[str]:
        """Ids of keys by which somebody can make keys."""
        ...

    def create_key(self, new: NewKey, by: Principal) -> CreatedKey:
        """A key with its text; one of role annotator labels as a new person of the key's name where
        no other is named."""
        ...

    def revoke_key(self, key_id: str, by: Principal) -> None:
        """End a key at once."""
        ...

    def invite(self, name: str, role: str, by: Principal) -> Invite:
        """A new person, and a link that makes one browser theirs, once."""
        ...


def state_of(key: Key, now: datetime) -> Literal["active", "expired", "revoked"]:
    """Only an active one opens anything."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"
