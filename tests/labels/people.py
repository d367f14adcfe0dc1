"""Who asks the service in tests: keys, people, sessions, and the time they live in."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from services.labels.api_keys import create_key
from services.labels.store.database import Database
from services.labels.store.tables import Annotator
from services.web.ids import new_id

HOST = "127.0.0.1:8321"
BASE_URL = f"http://{HOST}"


class SettableClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += timedelta(seconds=seconds)


def make_annotator(database: Database, name: str, now: datetime) -> str:
    """A person's id."""

    def operation(session: Session) -> str:
        row = Annotator(id=new_id(now), name=name, created_at=now)
        session.add(row)
        return row.id

    return database.write_now(operation)


def make_key(
    database: Database, role: str, now: datetime, *scopes: str, annotator_id: str | None = None
) -> str:
    """A key's text; one of role annotator labels as a new person, Ann, where none is given."""
    if role == "annotator" and annotator_id is None:
        annotator_id = make_annotator(database, "Ann", now)
    operation = lambda session: create_key(  # noqa: E731
        session, f"a {role}", role, now, "test", scopes, annotator_id
    )[1]
    return database.write_now(operation)


def bearer(key: str, **headers: str) -> dict[str, str]:
    """Headers of a request with this key; `Idempotency_Key="a"` adds Idempotency-Key."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Authorization": f"Bearer {key}", **extra}


def invite(client: TestClient, admin_key: str, role: str = "annotator", name: str = "Bob") -> str:
    """The secret of a fresh invite for a fresh person."""
    admin = bearer(admin_key)
    made = client.post("/api/v1/annotators", json={"name": name}, headers=admin | _fresh())
    link = client.post(
        f"{made.headers['location']}/invites", json={"role": role}, headers=admin | _fresh()
    )
    return link.json()["url"].partition("#invite=")[2]


def log_in(client: TestClient, admin_key: str, role: str = "annotator", name: str = "Bob") -> str:
    """Make `client` the browser of a fresh person; the CSRF token of the session."""
    link = invite(client, admin_key, role, name)
    answer = client.post("/api/v1/session", json={"invite": link}, headers={"Origin": BASE_URL})
    return answer.json()["csrf_token"]


def _fresh() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}
