"""Settings of the run-side API and the dashboard: one checked tree."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.run_store.retention import THUMBNAILS
from services.web.hosts import LOOPBACK
from services.web.settings import WebSettings

KIB = 1024


class Settings(WebSettings):
    """Everything that can be set, with what a laptop needs as the default."""

    runs: Path = Path("runs")
    """Folder that holds the run folders."""
    cache: Path = Field(default_factory=lambda known: known["runs"] / THUMBNAILS)
    """Folder of the thumbnails; it may be deleted at any time."""
    port: int = Field(default=8322, ge=0, le=65535)
    """0 is any."""
    max_body_bytes: int = Field(default=64 * KIB, ge=1)
    """JSON bodies."""
    max_open_runs: int = Field(default=32, ge=1)
    """Runs whose numbers and images are kept; the longest unused is read anew when its pages are
    opened. What lists show is kept of all."""
    jobs: bool = Field(default_factory=lambda known: known.get("host") in LOOPBACK)
    """Whether admins may have checkpoints exported and sampled by a process of this machine; if it
    is not said, only where `host` is loopback."""
    max_job_s: float = Field(default=1800, gt=0, le=86400)
    """What a job may take, in seconds; then it is ended."""
    labels_url: str | None = Field(default=None, pattern=r"^https?://[^/@\s]+/?$")
    """The label service, where its database is not here: http://HOST:PORT."""
    labels_key: str | None = Field(default=None, repr=False)
    """Key of role viewer or admin there; names are told only with an admin's."""

    @model_validator(mode="after")
    def _has_the_key(self) -> Self:
        if self.labels_url and not self.labels_key:
            raise ValueError(
                f"labels_url={self.labels_url} without labels_key; put a key of that label service "
                "into the environment as TDMR1_LABELS_KEY, or into the settings file"
            )
        return self
