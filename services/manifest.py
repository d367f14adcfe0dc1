"""What a checkpoint says of itself, readable without torch: its manifest, and which there are; an
export has a card."""

from pathlib import Path
from typing import Any

from pydantic_core import from_json

MANIFEST = "manifest.json"
FORMAT = 1
CARD = "tdm_r1.json"
"""Beside exported weights: the model, the sampler, and where they come from. It is written last: an
export without one is not whole."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest: `format`, `files` (sha256 and bytes by name) and `facts`."""
    path = folder / MANIFEST
    remedy = "give a checkpoint folder such as runs/RUN/checkpoints/step_000100"
    try:
        manifest = from_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"checkpoint {folder}: no {MANIFEST}; {remedy}") from error
    except ValueError as error:
        raise ValueError(f"checkpoint {folder}: {MANIFEST} is damaged ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"checkpoint {folder}: {MANIFEST} is not of format {FORMAT}; {remedy}")
    return manifest


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """Whole checkpoints in a run's folder, the newest first."""
    found = (path.parent for path in checkpoints.glob(f"step_*/{MANIFEST}"))
    return sorted(found, key=lambda path: (len(path.name), path.name), reverse=True)
