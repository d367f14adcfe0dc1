"""Settings of the label service: one checked tree, given by `tdm-r1 serve` or a test."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.web.limits import Rate
from services.web.settings import WebSettings

MIB = 1024 * 1024


class Rates(BaseModel):
    """By what is done; None is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    login: Rate | None = Rate(num=5, per_s=60)
    """Invites tried, by address."""
    claim: Rate | None = Rate(num=2, per_s=1)
    """Groups claimed, by annotator."""
    label: Rate | None = Rate(num=20, per_s=1)
    """Labels, by annotator."""
    requests: Rate | None = Rate(num=100, per_s=1)
    """Anything, by key or session of a viewer or annotator; services and admins are not limited."""


NO_RATES = Rates(login=None, claim=None, label=None, requests=None)
"""For tests and benchmarks."""


class Settings(WebSettings):
    """Everything that can be set, with what a laptop needs as the default."""

    data_dir: Path = Path("labels")
    """Folder of the database, the images and the exports."""
    database_url: str | None = None
    """sqlite:///PATH or postgresql+psycopg://...; `data_dir`/labels.db if not given."""
    port: int = Field(default=8321, ge=0, le=65535)
    """0 is any."""

    lease_seconds: float = Field(default=120, gt=0)
    """How long a group is somebody's without a heartbeat."""
    lease_max_seconds: float = Field(default=3600, gt=0)
    """How long a group is somebody's with all the heartbeats in the world."""
    max_leases: int = Field(default=4, ge=1)
    """Groups that one person holds at once: the one in work, the next, and what is on its way."""
    gold_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of assignments that are gold groups."""
    gold_first: int = Field(default=0, ge=0)
    """Gold answers asked of a new person before anything else, as far as there is gold."""
    overlap_rate: float = Field(default=0.1, ge=0, le=1)
    """Share of groups that two people label, to measure agreement."""
    max_open_groups: int = Field(default=2000, ge=1)
    """Unlabelled groups at once; beyond, the oldest policy versions expire."""
    max_skips: int = Field(default=3, ge=1)
    """Skips after which a group is retired."""
    coverage_min: float = Field(default=0.5, ge=0, le=1)
    """Share of images with a label that makes a group ready at its deadline."""
    k: float = Field(default=2.0, gt=0)
    """Weight of the prior in votes (k and k_g of the posterior)."""
    proxy_reward: str = ""
    """Automatic reward that, fitted to the labels, is the prior of its images; none if empty."""
    base_rate_window: int = Field(default=2000, ge=1)
    """Newest labels of a run that its like-rate is of."""
    influence_cap: float | None = Field(default=None, gt=0, le=1)
    """Share of the votes among those labels that one person may count for; with five people or
    more who vote. None is no cap."""
    gold_min_answers: int = Field(default=10, ge=1)
    """Gold answers before the gate may close on somebody."""
    gold_min_accuracy: float = Field(default=0.8, ge=0, le=1)
    """Gold accuracy below which somebody's votes weigh nothing."""
    late_labels: Literal["reward_model_only", "revise"] = "reward_model_only"
    """Whether a label after consumption makes a new reward revision."""
    revise_above: float = Field(default=0.15, ge=0)
    """Change of a posterior mean that makes one."""
    max_staleness: int | None = Field(default=None, ge=0)
    """Policy versions after which none is made; None is no bound."""

    rates: Rates = Rates()
    """How often somebody may do something."""
    event_days: float = Field(default=7, gt=0)
    """How long events and finished deliveries are kept."""
    webhook_hosts: tuple[str, ...] = ()
    """Where webhooks may point: names, `*.example.com`, either with `:port`; without, 443."""
    webhook_private: bool = False
    """Lets webhooks reach http and private addresses; for receivers on this machine."""
    max_body_bytes: int = Field(default=MIB, ge=1)
    """JSON bodies."""
    max_images_bytes_per_key: int | None = Field(default=None, ge=1)
    """Bytes of all images that one key has sent; None is no limit."""
    image_days: float | None = Field(default=None, gt=0)
    """How long images are kept that nobody labelled or pinned and no open group shows; None is for
    ever."""
    max_image_bytes: int = Field(default=20 * MIB, ge=1)
    """Uploaded images."""
    max_image_pixels: int = Field(default=64_000_000, ge=1)
    """Width times height of an uploaded image."""

    @property
    def url(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'labels.db'}"
