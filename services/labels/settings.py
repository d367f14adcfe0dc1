"""Settings of the label service: one checked tree, given by `tdm-r1 serve` or a test."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from services.web.hosts import LOOPBACK, with_host
from services.web.limits import Rate

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


class Settings(BaseModel):
    """Everything that can be set, with what a laptop needs as the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("labels")
    """Folder of the database, the images and the exports."""
    database_url: str | None = None
    """sqlite:///PATH or postgresql+psycopg://...; `data_dir`/labels.db if not given."""
    host: str = "127.0.0.1"
    """Address to listen on; another than loopback only once a key exists."""
    port: int = Field(8321, ge=0, le=65535)
    allowed_hosts: tuple[str, ...] = LOOPBACK
    """Names that the service answers to (Host header, without port)."""
    allowed_origins: tuple[str, ...] = ()
    """Origins (scheme://host:port) whose pages may act with a session cookie, beside our own."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For and -Proto are believed."""
    scrape_token: str | None = Field(None, repr=False)
    """Opens /metrics to others than this machine, as Authorization: Bearer."""

    lease_seconds: float = Field(120, gt=0)
    """How long a group is somebody's without a heartbeat."""
    lease_max_seconds: float = Field(3600, gt=0)
    """How long a group is somebody's with all the heartbeats in the world."""
    max_leases: int = Field(4, ge=1)
    """Groups that one person holds at once: the one in work, the next, and what is on its way."""
    gold_rate: float = Field(0.1, ge=0, le=1)
    """Share of assignments that are gold groups."""
    gold_first: int = Field(0, ge=0)
    """Gold answers asked of a new person before anything else, as far as there is gold."""
    overlap_rate: float = Field(0.1, ge=0, le=1)
    """Share of groups that two people label, to measure agreement."""
    max_open_groups: int = Field(2000, ge=1)
    """Unlabelled groups at once; beyond, the oldest policy versions expire."""
    max_skips: int = Field(3, ge=1)
    """Skips after which a group is retired."""
    coverage_min: float = Field(0.5, ge=0, le=1)
    """Share of images with a label that makes a group ready at its deadline."""
    k: float = Field(2.0, gt=0)
    """Weight of the prior in votes (k and k_g of the posterior)."""
    proxy_reward: str = ""
    """Automatic reward that, fitted to the labels, is the prior of its images; none if empty."""
    base_rate_window: int = Field(2000, ge=1)
    """Newest labels of a run that its like-rate is of."""
    influence_cap: float | None = Field(None, gt=0, le=1)
    """Share of the votes among those labels that one person may count for; with five people or
    more who vote. None is no cap."""
    gold_min_answers: int = Field(10, ge=1)
    """Gold answers before the gate may close on somebody."""
    gold_min_accuracy: float = Field(0.8, ge=0, le=1)
    """Gold accuracy below which somebody's votes weigh nothing."""
    late_labels: Literal["reward_model_only", "revise"] = "reward_model_only"
    """Whether a label after consumption makes a new reward revision."""
    revise_above: float = Field(0.15, ge=0)
    """Change of a posterior mean that makes one."""
    max_staleness: int | None = Field(None, ge=0)
    """Policy versions after which none is made; None is no bound."""

    rates: Rates = Rates()
    """How often somebody may do something."""
    max_streams: int = Field(4, ge=1)
    """Event streams a key may have open."""
    event_days: float = Field(7, gt=0)
    """How long events and finished deliveries are kept."""
    webhook_hosts: tuple[str, ...] = ()
    """Where webhooks may point: names, `*.example.com`, either with `:port`; without, 443."""
    webhook_private: bool = False
    """Lets webhooks reach http and private addresses; for receivers on this machine."""
    max_body_bytes: int = Field(MIB, ge=1)
    """JSON bodies."""
    max_images_bytes_per_key: int | None = Field(None, ge=1)
    """Bytes of all images that one key has sent; None is no limit."""
    image_days: float | None = Field(None, gt=0)
    """How long images are kept that nobody labelled or pinned and no open group shows; None is for
    ever."""
    max_image_bytes: int = Field(20 * MIB, ge=1)
    """Uploaded images."""
    max_image_pixels: int = Field(64_000_000, ge=1)
    """Width times height of an uploaded image."""

    @property
    def url(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'labels.db'}"

    @classmethod
    def load(cls, file: Path | None = None, **given: Any) -> "Settings":
        """What the YAML `file` says, and over it what was `given` (None is not given). The host is
        a name that the service answers to. ValueError where a setting is wrong."""
        values: dict[str, Any] = {}
        if file is not None:
            values = yaml.safe_load(file.read_text()) or {}
            if not isinstance(values, dict):
                raise ValueError(f"{file} holds no settings; write lines of `name: value`")
        settings = cls.model_validate(
            values | {name: value for name, value in given.items() if value is not None}
        )
        hosts = with_host(settings.allowed_hosts, settings.host)
        return settings.model_copy(update={"allowed_hosts": hosts})
