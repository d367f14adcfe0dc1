"""Idempotency-Key: a repeated POST gets its first answer again (an IETF draft of that name).

The answer is kept in the transaction that did the work, so that no crash can separate them. A key
belongs to its caller and route. Only success is kept: a failed operation has done nothing, so it
may be tried again under its key. In one process a repeat that comes while the first still runs is
409; another process's repeat waits on the row that the first inserts, and is 409 then.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Depends, Header, Request, Response
from sqlalchemy.orm import Session

from services.web.auth import Principal
from services.web.problems import Problem

KEPT_FOR = timedelta(hours=24)
MAX_KEY_LENGTH = 200
KEPT_HEADERS = ("content-type", "etag", "location", "cache-control", "retry-after")

Answered = TypeVar("Answered", bound=Response | None)


@dataclass(frozen=True)
class Attempt:
    """One request under a key."""

    key_id: str
    route: str
    key: str
    body_sha256: str


@dataclass(frozen=True)
class Kept:
    """The answer of the first attempt."""

    body_sha256: str
    status: int
    headers: dict[str, str]
    body: bytes


class Memory(Protocol):
    """Where answers are kept: `app.state.answers`."""

    def find(self, session: Session, attempt: Attempt, now: datetime) -> Kept | None:
        """What was answered under this key in the last 24 h."""
        ...

    def keep(self, session: Session, attempt: Attempt, kept: Kept, now: datetime) -> None:
        """Write it down; the unique key makes a rival of another process fail."""
        ...


class Running:
    """Attempts under way in this process: `app.state.running`."""

    def __init__(self) -> None:
        self._attempts: set[tuple[str, str, str]] = set()

    def __len__(self) -> int:
        return len(self._attempts)

    def start(self, attempt: Attempt) -> None:
        """409 where its key is already at work."""
        key = (attempt.key_id, attempt.route, attempt.key)
        if key in self._attempts:
            raise still_running()
        self._attempts.add(key)

    def end(self, attempt: Attempt) -> None:
        """It has been answered."""
        self._attempts.discard((attempt.key_id, attempt.route, attempt.key))


def _declare(
    _: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            max_length=MAX_KEY_LENGTH,
            description="Required. Any text; the same again when the same request is repeated",
            examples=["8f9d3c1e-6a55-4a0b-9a44-0c2b7a1d9e11"],
        ),
    ] = None,
) -> None:
    """Tells openapi.json of the header; `once` reads it, and says what is missing."""


IDEMPOTENT = Depends(_declare)
"""`dependencies=[IDEMPOTENT]` of a route that ends with `once`."""


def still_running() -> Problem:
    """409 for a repeat that came too early."""
    detail = "the first request under this Idempotency-Key still runs; repeat it later"
    headers = {"Retry-After": "1"}
    return Problem(409, "idempotency-key-running", "Still running", detail, headers=headers)


async def once(
    request: Request,
    principal: Principal,
    operation: Callable[[Session], Answered],
    secret: str | None = None,
) -> Answered | Response:
    """Run `operation` in one write transaction and keep its answer under the request's key; or
    give the kept answer again, with Idempotency-Replayed: true. An operation that returns None has
    done nothing, and nothing is kept. `secret` names a field that is shown once: a replay has null.
    """
    attempt = await _attempt(request, principal)
    state = request.app.state

    def run(session: Session) -> Answered | Response:
        kept = state.answers.find(session, attempt, state.clock())
        if kept is not None:
            return _replay(attempt, kept)
        response = operation(session)
        if response is not None:
            state.answers.keep(session, attempt, _kept(attempt, response, secret), state.clock())
        return response

    state.running.start(attempt)
    try:
        return await state.database.write(run)
    finally:
        state.running.end(attempt)


def key_of(request: Request) -> str:
    """The request's key; 400 without one."""
    key = request.headers.get("idempotency-key", "").strip()
    if not key:
        detail = "this POST creates: send Idempotency-Key: <a fresh UUID>, the same when you retry"
        raise Problem(400, "idempotency-key-missing", "Idempotency-Key is missing", detail)
    return key


def own_key(request: Request, principal: Principal) -> str:
    """The request's key as its caller's alone, for what is kept in files."""
    return hashlib.sha256(f"{principal.key_id} {key_of(request)}".encode()).hexdigest()


async def _attempt(request: Request, principal: Principal) -> Attempt:
    key = key_of(request)
    # The path with its ids, and the query: another object is another operation.
    route = f"{request.method} {request.url.path}?{request.url.query}"
    digest = hashlib.sha256(await request.body()).hexdigest()
    return Attempt(principal.key_id, route, key, digest)


def _kept(attempt: Attempt, response: Response, secret: str | None) -> Kept:
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    body = bytes(response.body)
    if secret is not None:
        body = json.dumps(json.loads(body) | {secret: None}).encode()
    return Kept(attempt.body_sha256, response.status_code, headers, body)


def _replay(attempt: Attempt, kept: Kept) -> Response:
    if kept.body_sha256 != attempt.body_sha256:
        detail = f"Idempotency-Key {attempt.key!r} came with another body before; use a fresh key"
        raise Problem(422, "idempotency-key-reused", "Another body under this key", detail)
    headers: dict[str, Any] = {**kept.headers, "Idempotency-Replayed": "true"}
    return Response(kept.body, kept.status, headers)
