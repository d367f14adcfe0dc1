"""Where the numbers about labels come from: the label service's database, which this process has
open for its keys, or the service itself where it runs elsewhere.

A source answers None where nobody is asked anything, and raises ValueError, which says what helps,
where it cannot answer or refuses. It may take its time: ask it in a thread.
"""

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.labels import leases
from services.labels.schemas.groups import GroupLease, GroupView
from services.labels.schemas.statistics import StatisticsView
from services.labels.statistics import Statistics, is_used, statistics
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.web.auth import Principal
from services.web.clock import Clock
from services.web.problems import Problem

TIMEOUT_S = 3.0
"""How long a service may take to answer."""
FRESH_S = 2.0
"""How long an answer is everybody's."""
REST_S = 15.0
"""How long a service that failed is left alone: who waits for it holds a thread."""
Found = TypeVar("Found")
View = TypeVar("View", bound=BaseModel)


class LabelSource(Protocol):
    """Tells how labelling does."""

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """Of one run or of all; `with_names` for an admin."""
        ...

    def leases(self, group_id: str) -> list[GroupLease]:
        """That people had a group, oldest first; none where it does not know the group."""
        ...

    def revoke(self, assignment_id: str, by: Principal) -> str:
        """An admin takes a lease back; the state that it is in."""
        ...


class LabelDatabase:
    """The database of a service on this machine, whether or not it runs now."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """None while it has no question: then it holds keys alone."""
        now = self._clock()
        with said():
            return self._database.read_now(
                lambda session: (
                    statistics(session, now, run_id, with_names) if is_used(session) else None
                )
            )

    def leases(self, group_id: str) -> list[GroupLease]:
        """They are told after the service has let go of the group's images, too."""
        with said():
            return self._database.read_now(
                lambda session: [
                    *map(GroupLease.model_validate, leases.of_groups(session, [group_id]))
                ]
            )

    def revoke(self, assignment_id: str, by: Principal) -> str:
        """The service hears of it when it looks for work the next time, within 2 s."""
        now = self._clock()
        with said():
            return self._database.write_now(
                lambda session: leases.revoke(session, assignment_id, now, by).state
            )


class LabelService:
    """A service elsewhere, asked with a key of its own."""

    def __init__(self, url: str, client: LabelClient) -> None:
        self._url, self._client = url, client

    def look(self, run_id: str | None, with_names: bool) -> Statistics:
        """Names are told only where the key is an admin's."""
        with said(self._url):
            answer = self._client.request("GET", "/statistics", params={"run_id": run_id})
        found = self._read(StatisticsView, answer.content).root
        return found if with_names else replace(found, for_admins=None)

    def leases(self, group_id: str) -> list[GroupLease]:
        """A group is no part of the address unless its name may be one."""
        with said(self._url):
            try:
                answer = self._client.request(
                    "GET", f"/groups/{quote(group_id, safe='')}", params={"include": "leases"}
                )
            except LabelServiceError as error:
                if error.status == 404:
                    return []
                raise
        return self._read(GroupView, answer.content).leases or []

    def _read(self, form: type[View], content: bytes) -> View:
        try:
            return form.model_validate_json(content)
        except ValidationError as error:
            raise ValueError(
                f"{self._url} answers in a form that this dashboard does not know; run the same "
                "version of both"
            ) from error

    def revoke(self, assignment_id: str, by: Principal) -> str:
        """There it is the dashboard's key that did it."""
        with said(self._url):
            return self._client.revoke(assignment_id)


@contextmanager
def said(url: str = "", roles: str = "viewer or admin") -> Iterator[None]:
    """What a source may come to, as ValueError; `roles` are those that may ask it."""
    try:
        yield
    except Problem as problem:
        raise ValueError(problem.detail) from problem
    except StoreUnavailable as error:
        raise ValueError(f"the database of the labels: {error}") from error
    except LabelServiceUnreachableError as error:
        raise ValueError(f"the label service does not answer: {error}") from error
    except LabelServiceError as error:
        remedy = f"; give the dashboard a key of role {roles} there (labels_key)"
        raise ValueError(
            f"{url} refuses: {error}{remedy if error.status in (401, 403) else ''}"
        ) from error


@dataclass
class _Answer:
    until: float
    found: Any = None
    fault: ValueError | None = None


class Answers:
    """What was found a moment ago is everybody's, and who failed is left alone for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._answers: dict[Hashable, _Answer] = {}
        self._lock = threading.Lock()

    def get(self, asked: Hashable, ask: Callable[[], Found]) -> Found:
        """What `ask` finds, or found for the same question."""
        with self._lock:
            now = self._clock()
            self._answers = {k: each for k, each in self._answers.items() if each.until > now}
            if asked not in self._answers:
                self._answers[asked] = self._ask(ask)
            answer = self._answers[asked]
        if answer.fault is not None:
            raise answer.fault
        return answer.found

    def forget(self) -> None:
        """Something has changed."""
        with self._lock:
            self._answers.clear()

    def _ask(self, ask: Callable[[], Any]) -> _Answer:
        try:
            found = ask()
        except ValueError as fault:
            return _Answer(self._clock() + REST_S, fault=fault)
        return _Answer(self._clock() + FRESH_S, found)


class SharedSource:
    """A source that is asked once for all pages that are open."""

    def __init__(self, source: LabelSource, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._source, self._answers = source, Answers(clock)

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """What was found a moment ago, or is now."""
        ask = partial(self._source.look, run_id, with_names)
        return self._answers.get((run_id, with_names), ask)

    def leases(self, group_id: str) -> list[GroupLease]:
        """What was found a moment ago, or is now."""
        return self._answers.get(group_id, partial(self._source.leases, group_id))

    def revoke(self, assignment_id: str, by: Principal) -> str:
        """Whoever looks next sees what has become of it."""
        try:
            return self._source.revoke(assignment_id, by)
        finally:
            self._answers.forget()
