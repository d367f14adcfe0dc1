"""`tdm-r1 keys`: API keys and invites, straight in the database. The first admin is made here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from services.commands.console import note, print_json, say, show
from services.commands.label_store import opened
from services.labels.annotators import create_annotator
from services.labels.api_keys import all_keys, create_key, find_key, live_admins, revoke_key
from services.labels.sessions import create_invite
from services.labels.settings import Settings
from services.web.clock import utc_now

BY = "cli"


def create(
    settings: Settings,
    name: str,
    role: str,
    scopes: Sequence[str],
    annotator: str | None,
    days: float | None,
    as_json: bool,
) -> None:
    """Make a key and show it, this once. One of role annotator labels as the person `annotator`
    (an id), or as a new person of the key's name."""

    def operation(session: Any, now: datetime) -> tuple[dict[str, Any], str]:
        who = annotator
        if role == "annotator" and who is None:
            who = create_annotator(session, name, now, BY).id
        row, text = create_key(session, name, role, now, BY, scopes, who, days)
        return _facts(row), text

    with _writing(settings) as write:
        facts, text = write(operation)
    note("this is shown once; keep it where secrets are kept")
    show(facts | {"key": text}, as_json, text)


def list_keys(settings: Settings, as_json: bool) -> None:
    """All keys, oldest first; never their secrets."""
    with _writing(settings, make=False) as write:
        rows = write(lambda session, _: [_facts(row) for row in all_keys(session)])
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "revoked" if row["revoked_at"] else f"until {row['expires_at'] or 'for ever'}"
        used = row["last_used_at"] or "never"
        say(f"{row['key_id']}  {row['role']:<9}  {row['name']}  {state}  used {used}")
    if not rows:
        note("no keys; make the first: tdm-r1 keys create --role admin --name me")


def revoke(settings: Settings, key_id: str, as_json: bool) -> None:
    """End a key at once."""

    def operation(session: Any, now: datetime) -> tuple[dict[str, Any], bool]:
        row = find_key(session, key_id)
        if row is None:
            raise ValueError(f"no key {key_id!r}; `tdm-r1 keys list` shows their ids")
        revoke_key(session, row, now, BY)
        session.flush()
        return _facts(row), row.role == "admin" and not live_admins(session, now)

    with _writing(settings, make=False) as write:
        facts, was_last = write(operation)
    if was_last:
        note("that was the last active admin key; tdm-r1 keys create --role admin makes another")
    show(facts, as_json, f"revoked {key_id}")


def invite(settings: Settings, name: str, role: str, as_json: bool) -> None:
    """Make a person and a link that logs their browser in, once."""

    def operation(session: Any, now: datetime) -> dict[str, Any]:
        row = create_annotator(session, name, now, BY)
        made, secret = create_invite(session, row.id, role, now, BY)
        url = f"http://127.0.0.1:{settings.port}/login#invite={secret}"
        return {"annotator_id": row.id, "url": url, "expires_at": made.expires_at}

    with _writing(settings, make=False) as write:
        facts = write(operation)
    note("this link works once; hand it to them alone")
    show(facts, as_json, facts["url"])


Operation = Callable[[Any, datetime], Any]


@contextmanager
def _writing(settings: Settings, make: bool = True) -> Iterator[Callable[[Operation], Any]]:
    with opened(settings, make) as database:
        yield lambda operation: database.write_now(lambda session: operation(session, utc_now()))


def _facts(row: Any) -> dict[str, Any]:
    return {
        "key_id": row.id,
        "name": row.name,
        "role": row.role,
        "scopes": row.scopes,
        "annotator_id": row.annotator_id,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
        "last_used_at": row.last_used_at,
    }
