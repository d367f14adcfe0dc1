"""Settings of the run-side API and the dashboard: one checked tree."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from services.web.hosts import LOOPBACK

KIB = 1024


class Settings(BaseModel):
    """Everything that can be set, with what a laptop needs as the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Path = Path("runs")
    """Folder that holds the run folders."""
    cache: Path = Path("runs/.cache")
    """Folder of the thumbnails; it may be deleted at any time."""
    host: str = "127.0.0.1"
    """Address to listen on; another than loopback only once a key exists."""
    port: int = Field(8322, ge=0, le=65535)
    """0 is any."""
    allowed_hosts: tuple[str, ...] = LOOPBACK
    """Names that the service answers to (Host header, without port)."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may act with a session cookie, beside our own."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For and -Proto are believed."""
    scrape_token: str | None = Field(None, repr=False)
    """Opens /metrics to others than this machine, as Authorization: Bearer."""
    max_streams: int = Field(4, ge=1)
    """Event streams a key may have open."""
    max_body_bytes: int = Field(64 * KIB, ge=1)
    """JSON bodies."""
    max_open_runs: int = Field(32, ge=1)
    """Runs whose numbers are kept in memory; the longest unused is read anew when asked for."""
