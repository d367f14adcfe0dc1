"""Runs, their workers, checkpoints, evaluations and alerts on the wire."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from services.run_store.forms import LearnedLabels
from services.run_store.news import waits_of
from services.run_store.promoted import Promotion
from services.run_store.run_folder import RunFolder
from services.runs_api.alerts import Alert
from services.runs_api.checkpoints import Checkpoint
from services.runs_api.evaluations import Sheet
from services.runs_api.held_out import Evaluation
from services.runs_api.schemas.groups import VerdictView
from services.runs_api.workers import Worker

RunState = Literal[
    "unknown", "starting", "running", "paused", "ending", "finished", "stopped", "failed", "silent"
]


def moment(unix_s: float) -> datetime:
    """A Unix time as the wire has it."""
    return datetime.fromtimestamp(unix_s, UTC)


class ChangeView(BaseModel):
    """Live parameters that a run was told to change."""

    changed_at: datetime
    iteration: int = Field(description="After which it was")
    command: str = Field(description="The command's id")
    by: str = Field(description="Who asked; empty for the command line")
    values: dict[str, tuple[float, float]] = Field(description="Key to before and after")

    @classmethod
    def of(cls, change: Mapping[str, Any]) -> Self:
        """As it goes out."""
        return cls.model_validate({**change, "changed_at": moment(change["time"])})


class RunView(BaseModel):
    """A run as its status tells, and how old that is."""

    run_id: str
    state: RunState = Field(description="`silent`: it has not ended and there is no news")
    last_state: str | None = Field(description="What a silent run said last")
    iteration: int | None
    iterations: int | None = Field(description="How many it will make")
    policy_version: int | None
    surrogate_version: int | None
    doing: str = Field(description="What takes its time now; empty between")
    waiting: list[str] = Field(description="What is waited for, and since when")
    created_at: datetime | None
    updated_at: datetime | None = Field(description="When its status was written")
    age_s: float | None = Field(description="Seconds since then; null if its clock is far ahead")
    config_hash: str
    seed: int | None
    changes: list[ChangeView] = Field(description="Live parameters that were set, oldest first")
    error: str | None = Field(description="Traceback of a failed run")
    summary: dict[str, Any] | None = Field(description="What it came to, at its end")

    @classmethod
    def of(cls, folder: RunFolder, facts: Mapping[str, Any]) -> Self:
        """From the small files of its folder."""
        origin = folder.origin()
        written = facts.get("updated_at")
        return cls(
            run_id=folder.id,
            state=facts["state"],
            last_state=facts.get("last_state"),
            iteration=facts.get("iteration"),
            iterations=facts.get("iterations"),
            policy_version=facts.get("policy_version"),
            surrogate_version=facts.get("surrogate_version"),
            doing=facts.get("doing", ""),
            waiting=waits_of(facts),
            created_at=moment(origin["created_at"]) if "created_at" in origin else None,
            updated_at=None if written is None else moment(written),
            age_s=facts["age_s"],
            config_hash=origin.get("config_hash", ""),
            seed=origin.get("seed"),
            changes=[ChangeView.of(change) for change in facts.get("changes", [])],
            error=facts.get("error"),
            summary=folder.summary() or None,
        )


class GpuView(BaseModel):
    """What a worker's process computes on."""

    name: str
    used_bytes: int = Field(description="Memory that all its processes have")
    total_bytes: int
    utilisation: float | None = Field(description="0 to 1; null where nothing can tell")


class WorkerView(BaseModel):
    """A worker of a run."""

    name: str
    role: str
    state: Literal["alive", "resting", "dead", "unknown", "ended"] = Field(
        description="`resting`: it gets no work for now; `unknown`: its run is silent"
    )
    pids: list[int]
    restarts: int
    since: datetime | None = Field(description="When it was started or died, if the run tells")
    heard_at: datetime | None = Field(description="When it last answered, also amid its work")
    gpus: list[GpuView] = Field(description="One a process that computes on one")

    @classmethod
    def of(cls, worker: Worker) -> Self:
        """As it goes out."""
        times = {
            "since": None if worker.since is None else moment(worker.since),
            "heard_at": None if worker.heard_at is None else moment(worker.heard_at),
        }
        gpus = [vars(gpu) for gpu in worker.gpus]
        return cls.model_validate(vars(worker) | times | {"gpus": gpus})


class WorkerList(BaseModel):
    """Every worker of a run, and when that was so."""

    updated_at: datetime | None
    items: list[WorkerView]


class FileView(BaseModel):
    """One file of a checkpoint."""

    name: str
    sha256: str
    bytes: int


class CheckpointView(BaseModel):
    """A checkpoint as its manifest tells."""

    name: str
    path: str = Field(description="Folder on the machine of the run")
    written_at: datetime
    iteration: int
    policy_version: int
    surrogate_version: int
    config_hash: str
    bytes: int
    files: list[FileView]
    scores: dict[str, float] = Field(description="Held-out scores of this very generator, if any")
    labels: LearnedLabels | None = Field(
        description="People's labels that the surrogate had learned from; null in checkpoints from "
        "before it was recorded"
    )
    promoted_at: datetime | None = Field(description="null unless it is the run's promoted one")
    promoted_by: str | None = Field(description="Who promoted it; empty for the command line")

    @classmethod
    def of(cls, checkpoint: Checkpoint, promotion: Promotion | None) -> Self:
        """As it goes out; `promotion` is the run's."""
        mine = promotion if promotion and promotion.checkpoint == checkpoint.name else None
        files = [
            FileView(name=file.name, sha256=file.sha256, bytes=file.num_bytes)
            for file in checkpoint.files
        ]
        return cls(
            name=checkpoint.name,
            path=str(checkpoint.path),
            written_at=moment(checkpoint.written_at),
            iteration=checkpoint.iteration,
            policy_version=checkpoint.policy_version,
            surrogate_version=checkpoint.surrogate_version,
            config_hash=checkpoint.config_hash,
            bytes=checkpoint.num_bytes,
            files=files,
            scores=checkpoint.scores,
            labels=checkpoint.labels,
            promoted_at=None if mine is None else moment(mine.at),
            promoted_by=None if mine is None else mine.by,
        )


class PromotionIn(BaseModel):
    """Which checkpoint people stand by."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"checkpoint": "step_000100"}}
    )
    checkpoint: str = Field(pattern=r"^step_[0-9]{1,12}$", description="Its name")


class SheetView(BaseModel):
    """The picture sheet of an evaluation; the image is at /runs/{run_id}/images/{sha256}."""

    label: str
    sha256: str
    written_at: datetime

    @classmethod
    def of(cls, sheet: Sheet) -> Self:
        """As it goes out."""
        return cls(label=sheet.label, sha256=sheet.digest, written_at=moment(sheet.written_at))


class HeldOutImageView(BaseModel):
    """One image of an evaluation; its pixels are at /runs/{run_id}/images/{sha256}."""

    number: int = Field(description="The same prompt and noise at every evaluation")
    prompt_id: str
    prompt: str
    sha256: str
    rewards: dict[str, VerdictView] = Field(description="Empty until all have judged")


class EvaluationView(BaseModel):
    """The stored images of an evaluation."""

    label: str
    written_at: datetime
    policy_version: int | None = Field(description="null for the teacher")
    images: list[HeldOutImageView]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        """As it goes out."""
        images = [vars(image) | {"sha256": image.digest} for image in evaluation.images]
        about = {"written_at": moment(evaluation.time), "images": images}
        return cls.model_validate(vars(evaluation) | about)


class AlertView(BaseModel):
    """Something to look at."""

    run_id: str
    rule: str
    severity: Literal["warning", "critical"]
    title: str
    detail: str
    remedy: str
    raised_at: datetime
    raised_step: int | None
    cleared_at: datetime | None = Field(description="null while it lasts")
    cleared_step: int | None

    @classmethod
    def of(cls, run_id: str, alert: Alert) -> Self:
        """As it goes out."""
        times = {
            "raised_at": moment(alert.raised_at),
            "cleared_at": None if alert.cleared_at is None else moment(alert.cleared_at),
        }
        return cls.model_validate({"run_id": run_id} | vars(alert) | times)


class RunList(BaseModel):
    """Runs, the newest first."""

    items: list[RunView]


class CheckpointList(BaseModel):
    """Checkpoints, the newest first."""

    items: list[CheckpointView]


class SheetList(BaseModel):
    """Evaluations' sheets, the oldest first."""

    items: list[SheetView]


class AlertList(BaseModel):
    """Alerts: those that last first, then the newest."""

    items: list[AlertView]
