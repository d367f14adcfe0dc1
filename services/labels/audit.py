"""The append-only log of who changed what: written with every change, read by admins."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from services.labels.schemas.audit import AuditView
from services.labels.store.tables import (
    ApiKey,
    Assignment,
    AuditEntry,
    Group,
    GroupImage,
    Label,
)
from services.web.auth import Principal
from services.web.pagination import Page

KEY = "key:"
"""What stands before a key's id where it is an actor (`Principal.actor`)."""


@dataclass(frozen=True)
class AuditFilter:
    """Which entries are wanted; None is no condition."""

    actor: str | None = None
    action: str | None = None
    object: str | None = None
    since: datetime | None = None
    run_id: str | None = None
    """Whose groups, images, labels and leases were changed."""


def record_audit(
    session: Session,
    by: Principal | str,
    action: str,
    object: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    now: datetime,
) -> None:
    """Append one entry; contents are kept as hashes, so that the log tells no secret. `by` is who
    asked, or the name of a command (`cli`)."""
    entry = AuditEntry(
        actor=by if isinstance(by, str) else by.actor,
        action=action,
        object=object,
        before_sha256=_digest(before),
        after_sha256=_digest(after),
        ip_sha256=None if isinstance(by, str) else by.ip_sha256,
        at=now,
    )
    session.add(entry)


def read_audit(
    session: Session, page: Page, wanted: AuditFilter
) -> tuple[list[AuditView], str | None, int | None]:
    """A page of it, newest first, the cursor after it, and how many there are where that is asked.
    Keys have their names as they are now; people stay pseudonymous."""
    equal = {
        AuditEntry.actor: wanted.actor,
        AuditEntry.action: wanted.action,
        AuditEntry.object: wanted.object,
    }
    query = select(AuditEntry).where(*(column == value for column, value in equal.items() if value))
    if wanted.since is not None:
        query = query.where(AuditEntry.at >= wanted.since)
    if wanted.run_id:
        query = query.where(_is_of(wanted.run_id))
    rows, cursor, total = page.fetch(session, query, AuditEntry.at, AuditEntry.seq)
    names = key_names(session, (text for row in rows for text in (row.actor, row.object)))
    return [AuditView.of(row, names) for row in rows], cursor, total


def key_names(session: Session, mentioned: Iterable[str]) -> dict[str, str]:
    """Names of those of the `mentioned` that are keys, by the text that mentions each: its id, or
    the actor that it is."""
    ids = {text: text.removeprefix(KEY) for text in mentioned}
    query = select(ApiKey.id, ApiKey.name).where(ApiKey.id.in_(set(ids.values())))
    known = {row.id: row.name for row in session.execute(query)}
    return {text: known[id] for text, id in ids.items() if id in known}


def _is_of(run_id: str) -> ColumnElement[bool]:
    """Whether an entry's object belongs to a run; each is looked up by its key."""
    object, of_run = AuditEntry.object, Group.run_id == run_id
    image = select(GroupImage.id).join(Group, Group.id == GroupImage.group_id)
    lease = select(Assignment.id).join(Group, Group.id == Assignment.group_id)
    return or_(
        select(Group.id).where(Group.id == object, of_run).exists(),
        image.where(GroupImage.sha256 == object, of_run).exists(),
        lease.where(Assignment.id == object, of_run).exists(),
        select(Label.id).where(Label.id == object, Label.run_id == run_id).exists(),
    )


def _digest(content: Mapping[str, Any] | None) -> str | None:
    if content is None:
        return None
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
