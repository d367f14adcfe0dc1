"""Where the numbers about labels come from: the label service's database, which this process has
open for its keys, or the service itself where it runs elsewhere.

A source answers None where nobody is asked anything, and raises ValueError, which says what helps,
where it cannot answer. It may take its time: ask it in a thread.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.labels.schemas.statistics import StatisticsView
from services.labels.statistics import Statistics, is_used, statistics
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.web.clock import Clock

TIMEOUT_S = 3.0
"""How long a service may take to answer."""
FRESH_S = 2.0
"""How long an answer is everybody's."""
REST_S = 15.0
"""How long a service that failed is left alone: who waits for it holds a thread."""


class LabelSource(Protocol):
    """Tells how labelling does."""

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """Of one run or of all; `with_names` for an admin."""
        ...


class LabelDatabase:
    """The database of a service on this machine, whether or not it runs now."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """None while it has no question: then it holds keys alone."""
        now = self._clock()
        try:
            return self._database.read_now(
                lambda session: (
                    statistics(session, now, run_id, with_names) if is_used(session) else None
                )
            )
        except StoreUnavailable as error:
            raise ValueError(f"the database of the labels: {error}") from error


class LabelService:
    """A service elsewhere, asked with a key of its own."""

    def __init__(self, url: str, client: LabelClient) -> None:
        self._url, self._client = url, client

    def look(self, run_id: str | None, with_names: bool) -> Statistics:
        """Names are told only where the key is an admin's."""
        try:
            answer = self._client.request("GET", "/statistics", params={"run_id": run_id})
            found = StatisticsView.model_validate_json(answer.content).root
        except LabelServiceUnreachableError as error:
            raise ValueError(f"the label service does not answer: {error}") from error
        except LabelServiceError as error:
            remedy = "give the dashboard a key of role viewer or admin there (labels_key)"
            raise ValueError(f"{self._url} refuses: {error}; {remedy}") from error
        except ValidationError as error:
            raise ValueError(
                f"{self._url} answers in a form that this dashboard does not know; run the same "
                "version of both"
            ) from error
        return found if with_names else replace(found, for_admins=None)


@dataclass
class _Answer:
    until: float
    found: Statistics | None = None
    fault: ValueError | None = None


class SharedSource:
    """A source that is asked once for all pages that are open."""

    def __init__(self, source: LabelSource, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._source, self._clock = source, clock
        self._answers: dict[tuple[str | None, bool], _Answer] = {}
        self._lock = threading.Lock()

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """What was found a moment ago, or is now."""
        asked = (run_id, with_names)
        with self._lock:
            now = self._clock()
            self._answers = {k: each for k, each in self._answers.items() if each.until > now}
            if asked not in self._answers:
                self._answers[asked] = self._ask(*asked)
            answer = self._answers[asked]
        if answer.fault is not None:
            raise answer.fault
        return answer.found

    def _ask(self, run_id: str | None, with_names: bool) -> _Answer:
        try:
            found = self._source.look(run_id, with_names)
        except ValueError as fault:
            return _Answer(self._clock() + REST_S, fault=fault)
        return _Answer(self._clock() + FRESH_S, found)
