"""A run's folder: where everything about it lies, and its one status file.

config.yaml run.json status.json metrics.jsonl groups.jsonl alerts.jsonl events.log summary.json
commands/ images/ checkpoints/ export/
"""

import json
import logging
import os
import platform
import re
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from services.config import RunConfig, config_hash, resolved_yaml
from services.run_store.files import write_whole
from services.run_store.forms import Origin, Status, Summary

log = logging.getLogger(__name__)
ENDED = ("finished", "stopped", "failed")
"""States after which nothing more happens."""


class BrokenRunError(ValueError):
    """One of a run's small files is not what we write."""


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run."""

    path: Path
    """The folder; its name is the run's id."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def origin_path(self) -> Path:
        """When and how it began; a folder without it is no run's."""
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def groups(self) -> Path:
        """What happened to the groups whose images are stored, one event a line."""
        return self.path / "groups.jsonl"

    @property
    def events(self) -> Path:
        """What the run said."""
        return self.path / "events.log"

    @property
    def alerts(self) -> Path:
        """What the run has found wrong with itself."""
        return self.path / "alerts.jsonl"

    @property
    def images(self) -> Path:
        """The image store."""
        return self.path / "images"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """What `tdm-r1 export` writes."""
        return self.path / "export"

    def status(self) -> dict[str, Any]:
        """The status as it was last written; `{}` before the first."""
        return _read(self.path / "status.json", Status)

    def status_written_at(self) -> float:
        """When its file was written, by the clock of the machine that holds it."""
        return (self.path / "status.json").stat().st_mtime

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace the status in one step, with the time and the process that wrote it."""
        about = {"updated_at": time.time(), "pid": os.getpid(), "node": socket.gethostname()}
        self._write("status.json", {"run_id": self.id, **status, **about})

    def origin(self) -> dict[str, Any]:
        """When and how it began."""
        return _read(self.origin_path, Origin)

    def summary(self) -> dict[str, Any]:
        """What the run came to; `{}` before its end."""
        return _read(self.path / "summary.json", Summary)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Record what the run came to."""
        self._write("summary.json", summary)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(content, indent=1).encode() + b"\n")


def create_run(config: RunConfig, default_name: str = "run") -> RunFolder:
    """A new folder `NAME-YYYYMMDD-HHMMSS` under `run.dir`, with its config and origin in it."""
    runs = config.run.dir
    # A config file may have any name; a run's is part of addresses.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", default_name).strip("-._")[:64] or "run"
    stem = f"{config.run.name or name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in range(1, 1000):
        path = runs / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            path.mkdir(parents=True)
            break
        except FileExistsError:
            continue
    folder = RunFolder(path)
    fill_run(folder, config)
    return folder


def fill_run(folder: RunFolder, config: RunConfig) -> None:
    """Write the config and the origin into the folder, which is made if it is not there."""
    for part in (folder.path, folder.path / "commands", folder.images, folder.checkpoints):
        part.mkdir(parents=True, exist_ok=True)
    write_whole(folder.config, resolved_yaml(config).encode())
    origin = {
        "run_id": folder.id,
        "created_at": time.time(),
        "config_hash": config_hash(config),
        "seed": config.run.seed,
        "command": sys.argv,
        "python": platform.python_version(),
    }
    folder._write("run.json", origin)


def list_runs(runs: Path) -> list[RunFolder]:
    """Runs under `runs`, the newest first; a folder that cannot be read hides no other."""
    return look_up_runs(runs)[0]


def look_up_runs(runs: Path) -> tuple[list[RunFolder], dict[str, str]]:
    """Runs under `runs`, the newest first; and by name why others there cannot be read."""
    found, broken = [], {}
    for path in runs.glob("*/run.json"):
        run = RunFolder(path.parent)
        try:
            origin, *_ = run.origin(), run.status(), run.summary()
            _check_readable(run.metrics, run.alerts)
            found.append((origin["created_at"], run.id, run))
        except (BrokenRunError, OSError) as error:
            broken[run.id] = str(error)
            _warn(run.id, str(error))
    return [run for *_, run in sorted(found, key=lambda each: each[:2], reverse=True)], broken


def find_run(runs: Path, name: str = "latest") -> RunFolder:
    """A run by its id, `latest`, or its folder; ValueError where there is none."""
    if (Path(name) / "run.json").is_file():
        return RunFolder(Path(name).absolute())
    found = list_runs(runs)
    if name == "latest" and found:
        return found[0]
    for run in found:
        if run.id == name:
            return run
    known = ", ".join(run.id for run in found[:5]) or "none"
    raise ValueError(f"no run {name!r} in {runs}; the newest there: {known}")


def _check_readable(*paths: Path) -> None:
    """OSError where one of them is there and is not ours to read."""
    for path in paths:
        with suppress(FileNotFoundError), path.open("rb"):
            pass


@lru_cache(maxsize=1024)  # the list is asked for every few seconds
def _warn(run_id: str, why: str) -> None:
    log.warning("run %s is left out of the list: %s", run_id, why)


def _read(path: Path, form: type[BaseModel]) -> dict[str, Any]:
    try:
        about = path.stat()
        # Whoever writes it replaces it, so that what is the same file with the same times is read.
        return dict(_parsed(path, form, about.st_ino, about.st_mtime_ns, about.st_size))
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=4096)  # lists and pages look again every few seconds
def _parsed(path: Path, form: type[BaseModel], *version: int) -> dict[str, Any]:
    try:
        said = from_json(path.read_bytes())
    except ValueError as error:  # no UTF-8 is one too, nor half a character, nor too deep
        raise BrokenRunError(f"{path} is not JSON ({error}); it was changed by hand") from error
    try:
        form.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*(str(part) for part in first["loc"]), first["msg"]])
        raise BrokenRunError(
            f"{path} is not what we write ({what}); it was changed by hand"
        ) from None
    return said
