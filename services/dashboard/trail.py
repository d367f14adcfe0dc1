"""Who did what, in one time order: audit logs of the label service, and what runs were told.

The order is total (time, then log, then place in the log), so that a page's last entry is where the
next one begins, whatever is written meanwhile.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.dashboard.label_admin import AuditLog, LabelAdmin
from services.label_client.models import AuditRecord
from services.labels.audit import AuditFilter
from services.run_store import commands, promoted
from services.run_store.commands import Command
from services.run_store.run_folder import RunFolder
from services.runs_api import jobs
from services.runs_api.jobs import Job, SampleIn
from services.web.pagination import pack, unpack
from services.web.problems import Problem

BY_COMMAND_LINE = "cli"
"""As the label service's audit log has it."""
RUNS = "runs"
BEYOND = 2**63 - 1
"""No row has that number."""

Place = tuple[datetime, str, str]
"""Of an entry in the order: when, in which log, where in that."""


@dataclass(frozen=True)
class Entry:
    """One deed."""

    at: datetime
    log: str
    id: str
    """Its place in the log."""
    where: str
    """Whose log, or which run."""
    actor: str
    action: str
    object: str
    outcome: str
    detail: str = ""
    """With what, and why it failed."""
    actor_name: str | None = None
    object_name: str | None = None

    @property
    def place(self) -> Place:
        """In the order of all."""
        return self.at, self.log, self.id


@dataclass(frozen=True)
class Trail:
    """A page of entries, newest first."""

    entries: Sequence[Entry]
    cursor: str | None
    """Of the page after it."""
    faults: Sequence[str]
    """Why others are not here."""


def read_trail(
    admin: LabelAdmin,
    runs: Iterable[RunFolder],
    wanted: AuditFilter,
    cursor: str | None,
    limit: int,
) -> Trail:
    """What is wanted of all logs, and of these runs. ValueError for a cursor
    that no page had."""
    before = _place_of(cursor) if cursor else None
    faults: list[str] = []
    found: list[Entry] = []
    for name, log in admin.logs.items():
        try:
            found += _told(name, log, wanted, before, limit + 1)
        except ValueError as fault:
            faults.append(f"The audit log of {name} cannot be read: {fault}")
    for run in runs:
        found += [
            entry
            for entry in deeds_of(run, faults)
            if _is_wanted(entry, wanted) and (before is None or entry.place < before)
        ]
    found.sort(key=lambda entry: entry.place, reverse=True)
    shown = found[:limit]
    names = admin.names(entry.actor for entry in shown if entry.log == RUNS)
    named = [replace(e, actor_name=names.get(e.actor)) if e.log == RUNS else e for e in shown]
    return Trail(named, _cursor_of(shown[-1]) if len(found) > limit else None, faults)


def _told(
    name: str, log: AuditLog, wanted: AuditFilter, before: Place | None, limit: int
) -> list[Entry]:
    after = None
    if before is not None:
        time, other, id = before
        # Of one time the logs follow one another by their names.
        after = (time, int(id)) if name == other else (time, BEYOND if name < other else 0)
    return [_entry(name, record) for record in log(wanted, after, limit)]


def _entry(log: str, record: AuditRecord) -> Entry:
    return Entry(
        at=record.at,
        log=log,
        id=f"{record.seq:020d}",
        where=log,
        actor=record.actor,
        action=record.action,
        object=record.object,
        outcome="done",  # written in the transaction that did it
        actor_name=record.actor_name,
        object_name=record.object_name,
    )


def deeds_of(run: RunFolder, faults: list[str]) -> list[Entry]:
    """Commands, promotions and jobs of a run, in no order; why some cannot be read is added to the
    `faults`."""
    found = [_command(run, each) for each in commands.history(run.path)]
    try:
        found += [_promotion(run, *each) for each in enumerate(promoted.promotions(run))]
        found += [_job(run, each) for each in jobs.history(run)]
    except (ValueError, OSError) as error:
        faults.append(f"Of run {run.id} not everything can be read: {error}")
    return found


def _command(run: RunFolder, command: Command) -> Entry:
    values = ", ".join(f"{key}={value}" for key, value in command.arguments.items())
    return _deed(
        run,
        command.times["requested"],
        f"command {command.id}",
        command.by,
        action=f"command.{command.type}",
        object=run.id,
        outcome=command.state,
        detail=_joined(values, command.reason),
    )


def _promotion(run: RunFolder, number: int, promotion: promoted.Promotion) -> Entry:
    return _deed(
        run,
        promotion.at,
        f"promotion {number:08d}",
        promotion.by,
        action="checkpoint.promote",
        object=promotion.checkpoint,
        outcome="done",
    )


def _job(run: RunFolder, job: Job) -> Entry:
    asked = job.asked
    what = f"{asked.num_images} of: {asked.prompt}" if isinstance(asked, SampleIn) else ""
    return _deed(
        run,
        job.started_at,
        f"job {job.id}",
        job.by,
        action=f"checkpoint.{job.kind}",
        object=job.checkpoint,
        outcome=job.state,
        detail=_joined(what, job.reason),
    )


def _deed(run: RunFolder, at: float, id: str, by: str, **what: str) -> Entry:
    when, who = datetime.fromtimestamp(at, UTC), by or BY_COMMAND_LINE
    return Entry(at=when, log=RUNS, id=f"{run.id} {id}", where=run.id, actor=who, **what)


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _is_wanted(entry: Entry, wanted: AuditFilter) -> bool:
    """As the label service's audit log filters; a run is an object too."""
    return (
        (not wanted.actor or entry.actor == wanted.actor)
        and (not wanted.action or entry.action == wanted.action)
        and (not wanted.object or wanted.object in (entry.object, entry.where))
        and (wanted.since is None or entry.at >= wanted.since)
    )


def _cursor_of(entry: Entry) -> str:
    return pack([entry.at.isoformat(), entry.log, entry.id])


def _place_of(cursor: str) -> Place:
    try:
        time, log, id = unpack(cursor, 3)
        at = datetime.fromisoformat(time)
        if at.tzinfo is None or not isinstance(log, str) or not isinstance(id, str):
            raise ValueError("no zone, or no texts")
        if log != RUNS and not 0 <= int(id) < BEYOND:
            raise ValueError("no number of a row")
    except (Problem, ValueError, TypeError) as error:
        raise ValueError(
            f"before={cursor[:80]!r} is no place in this log; leave it out, or follow a link of it"
        ) from error
    return at, log, id
