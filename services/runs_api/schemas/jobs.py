"""Jobs on the wire."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from services.run_store.run_folder import RunFolder
from services.runs_api.jobs import Job, SampleIn, State
from services.runs_api.schemas.runs import moment


class JobView(BaseModel):
    """An export or a sample, and how far it has come."""

    id: str
    kind: Literal["export", "sample"]
    checkpoint: str
    state: State
    reason: str = Field(description="Why it failed: the last line that its process said")
    by: str = Field(description="Who asked")
    started_at: datetime
    ended_at: datetime | None
    path: str | None = Field(description="Folder of a done export, on the dashboard's machine")
    images: list[str] = Field(
        description="Digests of a done sample: /runs/{run_id}/images/{sha256}"
    )
    asked: SampleIn | None = Field(description="What was to be drawn; null of an export")

    @classmethod
    def of(cls, run: RunFolder, job: Job) -> Self:
        """As it goes out."""
        is_exported = job.kind == "export" and job.state == "done"
        return cls(
            id=job.id,
            kind=job.kind,
            checkpoint=job.checkpoint,
            state=job.state,
            reason=job.reason,
            by=job.by,
            started_at=moment(job.started_at),
            ended_at=None if job.ended_at is None else moment(job.ended_at),
            path=str(run.path.absolute() / job.out) if is_exported else None,
            images=list(job.images),
            asked=job.asked if isinstance(job.asked, SampleIn) else None,
        )


class JobList(BaseModel):
    """Jobs, the newest first."""

    items: list[JobView]
