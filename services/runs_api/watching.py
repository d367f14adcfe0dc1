"""What has happened in a run's folder behind a position: small events, each with the next one."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from services.run_store import commands
from services.run_store.forms import are_numbers, is_alert, is_appearance
from services.run_store.images import ImageStore
from services.run_store.run_folder import BrokenRunError, RunFolder
from services.run_store.tail import Tail
from services.runs_api.positions import Position

MAX_BYTES = 256 * 1024
"""Of one file read for one event: what is behind comes in the next."""
LOG_LINES = 50
TOPICS = ("metrics", "groups", "log", "alerts", "commands", "status")
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Happening:
    """One event."""

    topic: str
    data: dict[str, Any]
    position: Position
    """Where to go on."""


class TornError(Exception):
    """A file is shorter than the position says: another run's, or written anew."""


def newest(folder: RunFolder) -> Position:
    """Behind everything that there is now."""
    commands = max((_ns(path) for path in _command_files(folder)), default=0)
    return Position(
        _size(folder.metrics),
        _size(ImageStore(folder.images).index_path),
        _size(folder.events),
        _size(folder.alerts),
        commands,
        _ns(folder.path / "status.json"),
        _begun_ms(folder),
    )


def since(folder: RunFolder, position: Position) -> Iterator[Happening]:
    """Events behind `position`, each once; TornError where it is of another folder."""
    begun_ms = _begun_ms(folder)
    if position.begun_ms not in (0, begun_ms):
        raise TornError(f"{folder.id} is another run than that of {position.begun_ms}")
    for look in (_metrics, _groups, _log, _alerts, _commands, _status):
        for happening in look(folder, position):
            position = happening.position
            yield happening


def _metrics(folder: RunFolder, position: Position) -> Iterator[Happening]:
    for lines, end in _objects(folder.metrics, position.metrics, are_numbers):
        position = replace(position, metrics=end)
        steps = [line["step"] for line in (lines[0], lines[-1])]
        data = {"from_step": steps[0], "to_step": steps[1], "num_lines": len(lines)}
        yield Happening("metrics", data, position)


def _groups(folder: RunFolder, position: Position) -> Iterator[Happening]:
    path = ImageStore(folder.images).index_path
    for lines, end in _objects(path, position.images, is_appearance):
        position = replace(position, images=end)
        ids = sorted({line["group_id"] for line in lines})
        data = {"group_ids": ids[-LOG_LINES:], "num_groups": len(ids), "num_images": len(lines)}
        yield Happening("groups", data, position)


def _log(folder: RunFolder, position: Position) -> Iterator[Happening]:
    for lines, end in _lines(folder.events, position.log):
        position = replace(position, log=end)
        newest = [line.decode(errors="replace") for line in lines[-LOG_LINES:]]
        yield Happening("log", {"lines": newest, "num_lines": len(lines)}, position)


def _alerts(folder: RunFolder, position: Position) -> Iterator[Happening]:
    for lines, end in _objects(folder.alerts, position.alerts, is_alert):
        position = replace(position, alerts=end)
        yield Happening("alerts", {"num_lines": len(lines)}, position)


def _commands(folder: RunFolder, position: Position) -> Iterator[Happening]:
    changed = sorted((_ns(path), path) for path in _command_files(folder))
    for at, path in changed:
        if at <= position.commands_ns:
            continue
        position = replace(position, commands_ns=at)
        with suppress(ValueError):  # the run answers what is no command
            said = commands.read(folder.path, path.stem)
            data = {key: getattr(said, key) for key in ("id", "type", "state", "reason")}
            yield Happening("commands", data, position)


def _status(folder: RunFolder, position: Position) -> Iterator[Happening]:
    at = _ns(folder.path / "status.json")
    if at != position.status_ns:
        said: dict[str, Any] = {}
        with suppress(BrokenRunError):  # changed by hand: that it has changed is news too
            said = folder.status()
        shown = ("state", "iteration", "iterations", "policy_version", "doing", "updated_at")
        data = {key: said.get(key) for key in shown}
        yield Happening("status", data, replace(position, status_ns=at))


def _lines(path: Path, start: int) -> Iterator[tuple[list[bytes], int]]:
    tail = Tail(path, start)
    return _grown(tail, tail.lines)


def _objects(
    path: Path, start: int, is_ours: Callable[[dict[str, Any]], bool]
) -> Iterator[tuple[list[dict[str, Any]], int]]:
    tail = Tail(path, start, is_ours)
    return _grown(tail, tail.read)


def _grown(tail: Tail, read: Callable[[int], list[Piece]]) -> Iterator[tuple[list[Piece], int]]:
    start = tail.position
    while found := read(MAX_BYTES):
        yield found, tail.position
    if tail.is_over:
        raise TornError(f"{tail.path.name} has fewer than {start} bytes")


def _command_files(folder: RunFolder) -> list[Path]:
    return list((folder.path / "commands").glob("[0-9]*.json"))


def _size(path: Path) -> int:
    """Of whole lines."""
    tail = Tail(path)
    while tail.lines():
        pass
    return tail.position


def _begun_ms(folder: RunFolder) -> int:
    """0 where its origin cannot be read."""
    with suppress(BrokenRunError):
        return int(1000 * folder.origin().get("created_at", 0))
    return 0


def _ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
