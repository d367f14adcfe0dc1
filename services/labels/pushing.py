"""Labels pushed by other tools, and how those that come at the same time are written as one."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from sqlalchemy.orm import Session

from services.labels.labelling import Recorded, Verdict, record
from services.labels.people import Person, by_id, by_refs
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.web.auth import Principal
from services.web.problems import Problem

if TYPE_CHECKING:
    from services.labels.schemas.labels import PushedLabel
    from services.labels.settings import Settings

Source = Literal["api", "import"]
"""How labels without a lease came: from an app, or out of a file."""
TOGETHER = 256
"""Labels that are written as one, at most."""


@dataclass(frozen=True, slots=True)
class Push:
    """A verdict, and who says so."""

    principal: Principal
    label: "PushedLabel"


def push(
    session: Session,
    pushes: Sequence[Push],
    now: datetime,
    settings: "Settings",
    source: Source = "api",
) -> list[Recorded]:
    """Store what can be stored; an answer a push, in order."""
    people = _people(session, pushes, now)
    results: dict[int, Recorded] = {}
    verdicts: dict[int, Verdict] = {}
    for place, (each, person) in enumerate(zip(pushes, people, strict=True)):
        if isinstance(person, Problem):
            results[place] = Recorded(person.status, problem=person)
        else:
            said = each.label.model_dump(exclude={"annotator_ref"})
            verdicts[place] = Verdict(person=person, **said)
    recorded = record(session, [*verdicts.values()], source, now, settings)
    results |= zip(verdicts, recorded, strict=True)
    return [results[place] for place in range(len(pushes))]


class Together:
    """Labels that arrive while the writer is busy wait together and are stored in one go: so the
    statements are few, as they are for a batch."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime], settings: "Settings"
    ) -> None:
        self._database, self._clock, self._settings = database, clock, settings
        self._open: _Company | None = None

    async def push(self, one: Push) -> Recorded:
        """Store one label; durable when it returns."""
        company = self._open
        place = None if company is None else company.join(one)
        if company is None or place is None:
            company = self._open = _Company(self._clock, self._settings)
            place = company.join(one)
            company.answer = asyncio.ensure_future(self._store(company))
        assert company.answer is not None
        assert place is not None
        # Who goes away must not take the others' labels along.
        result = (await asyncio.shield(company.answer))[place]
        if isinstance(result, Exception):
            raise result
        return result

    async def _store(self, company: "_Company") -> Sequence[Recorded | Exception]:
        try:
            return await self._database.write(company.run)
        except StoreUnavailable:
            raise
        except Exception:  # whatever one label is the cause of, the others are not
            alone = [company.alone(place) for place in range(company.size)]
            writes = (self._database.write(run) for run in alone)
            results = await asyncio.gather(*writes, return_exceptions=True)
            return [_first(result) for result in results]


@dataclass
class _Company:
    """Labels that are stored in one go, open until the writer comes to them."""

    clock: Callable[[], datetime]
    settings: "Settings"
    answer: "asyncio.Future[Sequence[Recorded | Exception]] | None" = None
    _pushes: list[Push] = field(default_factory=list)
    _closed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def join(self, one: Push) -> int | None:
        """Its place; None where it came too late."""
        with self._lock:
            if self._closed or len(self._pushes) >= TOGETHER:
                return None
            self._pushes.append(one)
            return len(self._pushes) - 1

    def run(self, session: Session) -> list[Recorded]:
        """Store them all; in the writer, who may have to do it again."""
        with self._lock:
            self._closed = True
        return push(session, self._pushes, self.clock(), self.settings)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._pushes)

    def alone(self, place: int) -> Callable[[Session], list[Recorded]]:
        """As `run`, of one of them."""
        one = self._pushes[place]
        return lambda session: push(session, [one], self.clock(), self.settings)


def _first(result: list[Recorded] | BaseException) -> Recorded | Exception:
    if isinstance(result, Exception):
        return result
    assert isinstance(result, list)
    return result[0]


def _people(session: Session, pushes: Sequence[Push], now: datetime) -> list[Person | Problem]:
    """Whose each label is: an app's user by name, or the caller."""
    refs: dict[str, dict[str, None]] = defaultdict(dict)
    for each in pushes:
        ref = each.label.annotator_ref
        if ref is not None and each.principal.may("labels:on_behalf"):
            refs[each.principal.key_id][ref] = None
    users = {key: by_refs(session, key, names, now) for key, names in refs.items()}
    return [_person(session, each, users.get(each.principal.key_id, {})) for each in pushes]


def _person(session: Session, one: Push, users: dict[str, Person | Problem]) -> Person | Problem:
    ref, principal = one.label.annotator_ref, one.principal
    if ref is not None:
        detail = "annotator_ref needs a service key of scope labels:on_behalf"
        return users.get(ref) or Problem(403, "forbidden", "Not allowed", detail)
    if principal.annotator_id is None:
        detail = "this key labels as nobody; send annotator_ref, the user's name in your app"
        errors = [{"pointer": "#/annotator_ref", "detail": detail}]
        return Problem(422, "annotator-missing", "Whose label is it?", detail, errors)
    try:
        return by_id(session, principal.annotator_id)
    except Problem as problem:
        return problem
