"""The run's inbox: one small file a command, on the disk before its sender is told so.

A sender writes `requested` and never touches the file again; only the run's controller does, which
replaces it whole: requested -> acknowledged (seen) -> applied (in force) or rejected (why). What it
sees later than its sender waits for is timed_out, and never done.
"""

import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic_core import from_json

from services.run_store.arguments import checked
from services.run_store.files import write_whole
from services.run_store.forms import CommandFile

State = Literal["requested", "acknowledged", "applied", "rejected", "timed_out"]
Type = Literal["pause", "unpause", "stop", "checkpoint", "set", "scale"]
TYPES: tuple[str, ...] = get_args(Type)


@dataclass(frozen=True)
class Command:
    """A command and how far it has come."""

    id: str
    """Sorts by the time of its request."""
    type: str
    """One of `TYPES`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the type needs (`arguments.checked`)."""
    state: State = "requested"
    """How far it has come."""
    times: Mapping[str, float] = field(default_factory=dict)
    """State to the Unix time it was reached."""
    reason: str = ""
    """Why it was rejected."""
    by: str = ""
    """Who asked, as the audit log names them; empty for the command line."""
    key: str = ""
    """Its sender's name for the request, so that a repeated one is not a second command."""

    def as_of(self, now: float) -> "Command":
        """`timed_out` where the run has not seen it in time: it never will be done."""
        expires = self.times.get("expires")
        if self.state == "requested" and expires is not None and now > expires:
            return replace(self, state="timed_out", reason="the run has not seen it in time")
        return self


def request(
    run: Path,
    type: str,
    arguments: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    by: str = "",
    key: str = "",
) -> str:
    """Put a command into the inbox of the run folder `run`; its id, once it is on the disk. A run
    that sees it after `timeout_s` does not obey. ValueError says what is allowed."""
    if type not in TYPES:
        raise ValueError(f"unknown command {type!r}; allowed: {', '.join(TYPES)}")
    arguments = checked(type, arguments or {})
    now = time.time()
    identity = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    times = (
        {"requested": now} if timeout_s is None else {"requested": now, "expires": now + timeout_s}
    )
    command = Command(identity, type, arguments, "requested", times, "", by, key)
    _inbox(run).mkdir(parents=True, exist_ok=True)
    _write(run, command)
    return identity


def read(run: Path, identity: str) -> Command:
    """A command as it stands; ValueError where there is none of that id."""
    path = _inbox(run) / f"{identity}.json"
    try:
        said = CommandFile.model_validate(from_json(path.read_bytes()))
    except FileNotFoundError as error:
        raise ValueError(f"no command {identity} in {path.parent}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a command ({error}); remove the file") from error
    if said.id != identity or "requested" not in said.times:
        raise ValueError(f"{path} is not a command (of another name or time); remove the file")
    return Command(**said.model_dump())


def history(run: Path) -> list[Command]:
    """Every readable command of a run, the newest first, as it stands now."""
    found = []
    for path in sorted(_inbox(run).glob("[0-9]*.json"), reverse=True):
        with suppress(ValueError):  # the run answers what is no command
            found.append(read(run, path.stem).as_of(time.time()))
    return found


def unanswered(run: Path) -> list[Command]:
    """Commands not applied or rejected yet, oldest first. A file that is no command is rejected."""
    found = []
    for path in sorted(_inbox(run).glob("[0-9]*.json")):
        try:
            command = read(run, path.stem)
        except ValueError as error:
            # Written by another hand; answering it keeps its sender from waiting for ever.
            times = {"requested": path.stat().st_mtime}
            command = Command(path.stem, "unreadable", times=times)
            command = answer(run, command, "rejected", str(error))
        late = command.as_of(time.time())
        if late.state == "timed_out":
            answer(run, command, "timed_out", late.reason)
        elif command.state in ("requested", "acknowledged"):
            found.append(command)
    return found


def answer(run: Path, command: Command, state: State, reason: str = "") -> Command:
    """Record that a command has reached `state`; the command as it stands now."""
    times = {**command.times, state: time.time()}
    command = replace(command, state=state, times=times, reason=reason)
    _write(run, command)
    return command


def reject_unanswered(run: Path, reason: str) -> None:
    """Answer what nobody will do any more."""
    for command in unanswered(run):
        answer(run, command, "rejected", reason)


def _inbox(run: Path) -> Path:
    return run / "commands"


def _write(run: Path, command: Command) -> None:
    content = json.dumps(asdict(command), indent=1).encode()
    write_whole(_inbox(run) / f"{command.id}.json", content, durable=True)
