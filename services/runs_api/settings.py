"""Settings of the run-side API and the dashboard: one checked tree."""

from pathlib import Path

from pydantic import Field

from services.web.settings import WebSettings

KIB = 1024


class Settings(WebSettings):
    """Everything that can be set, with what a laptop needs as the default."""

    runs: Path = Path("runs")
    """Folder that holds the run folders."""
    cache: Path = Field(default_factory=lambda known: known["runs"] / ".cache")
    """Folder of the thumbnails; it may be deleted at any time."""
    port: int = Field(default=8322, ge=0, le=65535)
    """0 is any."""
    max_body_bytes: int = Field(default=64 * KIB, ge=1)
    """JSON bodies."""
    max_open_runs: int = Field(default=32, ge=1)
    """Runs whose numbers and images are kept; the longest unused is read anew when its pages are
    opened. What lists show is kept of all."""
