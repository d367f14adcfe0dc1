"""Jobs: what a dashboard has the command line do with a checkpoint, and what became of it.

Decides and starts nothing (services/runs_api/job_runner.py does). `RUN/jobs/ID.json` is a job,
`ID.log` what its process said; that file is locked while somebody works at the job.
"""

import fcntl
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.manifest import CARD, list_checkpoints
from services.run_store.forms import Digest, Time
from services.run_store.images import ImageStore
from services.run_store.run_folder import BrokenRunError, RunFolder
from services.web.keys import redact
from services.web.problems import Problem

FOLDER, SAMPLES = "jobs", "samples"
MOST_IMAGES = 16
LAST_LINE_CHARACTERS = 500
State = Literal["running", "done", "failed"]


class ExportIn(BaseModel):
    """An export takes no choice yet: the averaged generator, as diffusers loads it."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": {}})


class SampleIn(BaseModel):
    """What to draw."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"example": {"prompt": "two red circles", "num_images": 4}},
    )
    prompt: str = Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$", description="One line")
    num_images: int = Field(default=1, ge=1, le=MOST_IMAGES)
    seed: int = Field(default=0, ge=0, lt=2**31, description="Key of the noise")


class Job(BaseModel):
    """One, as its file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9]{20}-[0-9a-f]{8}$")
    checkpoint: str
    """Name of its folder."""
    asked: Annotated[SampleIn | ExportIn, Field(union_mode="left_to_right")]
    out: str = Field(pattern=r"^(exports|samples)/[\w-]+$")
    """Folder that the process writes into, under the run's."""
    by: str
    """Who asked, as the audit log names them."""
    key: str
    """Asked for under the same key, it is the same job."""
    started_at: Time
    """Unix time."""
    ended_at: Time | None = None
    state: State = "running"
    reason: str = ""
    """Why it failed."""
    images: tuple[Digest, ...] = ()
    """Digests of what was drawn."""

    @property
    def kind(self) -> Literal["export", "sample"]:
        """The command."""
        return "sample" if isinstance(self.asked, SampleIn) else "export"

    def ended(self, reason: str = "", images: Iterable[str] = ()) -> "Job":
        """The same once it is over: failed where there is a reason."""
        state = "failed" if reason else "done"
        more = {"state": state, "reason": reason, "images": tuple(images)}
        return self.model_copy(update=more | {"ended_at": time.time()})


def record(run: RunFolder, job_id: str) -> Path:
    """The file of a job; its log is beside it."""
    return run.path / FOLDER / f"{job_id}.json"


def log_of(run: RunFolder, job: Job) -> Path:
    """What its process said."""
    return record(run, job.id).with_suffix(".log")


def store_of(run: RunFolder) -> ImageStore:
    """Where drawn images lie, each by its digest."""
    return ImageStore(run.path / SAMPLES)


def history(run: RunFolder) -> list[Job]:
    """Every job of a run, the newest first."""
    return [_read(run, path) for path in sorted((run.path / FOLDER).glob("[!.]*.json"))[::-1]]


def _read(run: RunFolder, path: Path) -> Job:
    try:
        job = Job.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BrokenRunError(f"{path} is not what we write; it was changed by hand") from error
    if job.state != "running" or _is_worked_at(log_of(run, job)):
        return job
    newest = Job.model_validate_json(path.read_bytes())  # it may have ended in between
    if newest.state != "running":
        return newest
    lost = {"state": "failed", "reason": "its dashboard ended before it"}
    return newest.model_copy(update=lost)  # nobody knows when


def _is_worked_at(log: Path) -> bool:
    try:
        with log.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def leftovers(run: RunFolder) -> list[Path]:
    """Folders of jobs that ended with their dashboard: nobody works at them, and no export there is
    whole."""
    newest = {job.out: job for job in reversed(history(run))}
    lost = [run.path / out for out, job in newest.items() if job.state == "failed"]
    return [path for path in lost if path.is_dir() and not (path / CARD).exists()]


def planned(run: RunFolder, checkpoint: str, asked: ExportIn | SampleIn, by: str, key: str) -> Job:
    """The job, or why there cannot be one."""
    known = [path.name for path in list_checkpoints(run.checkpoints)]
    if checkpoint not in known:
        there = ", ".join(known) or "none yet"
        detail = f"run {run.id} has no checkpoint {checkpoint!r}; it has {there}"
        raise Problem(404, "checkpoint-not-found", "No such checkpoint", detail)
    identity = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
    is_export = isinstance(asked, ExportIn)
    out = f"exports/{checkpoint}" if is_export else f"{SAMPLES}/{identity}"
    if (run.path / out).exists():
        detail = (
            f"{run.path / out} is there already and is not overwritten; use it, or move it away"
        )
        raise Problem(409, "export-exists", "It is exported already", detail)
    return Job(
        id=identity,
        checkpoint=checkpoint,
        asked=asked,
        out=out,
        by=by,
        key=key,
        started_at=time.time(),
    )


def command_of(run: RunFolder, job: Job) -> list[str]:
    """The arguments of its process. No word of a person's begins one."""
    home = run.path.absolute()
    words = [sys.executable, "-m", "services.cli", job.kind]
    words += [str(home / "checkpoints" / job.checkpoint), f"--out={home / job.out}", "--json"]
    if isinstance(job.asked, SampleIn):
        words.append(f"--prompt={job.asked.prompt}")
        words += [f"--num-images={job.asked.num_images}", f"--seed={job.asked.seed}"]
    return words


def complaint(status: int | None, limit_s: float, lines: Sequence[str]) -> str:
    """Why a process failed; empty where it did not. `status` None is one that took too long."""
    if status is None:
        return f"it took longer than max_job_s={limit_s:g} s and was ended"
    if status == 0:
        return ""
    said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    return f"{redact(said)[:LAST_LINE_CHARACTERS]} (exit status {status})"
