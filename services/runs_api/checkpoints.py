"""A run's checkpoints as their manifests tell, with the scores of the generators they hold."""

from dataclasses import dataclass
from pathlib import Path

from services.manifest import MANIFEST, list_checkpoints, read_manifest
from services.run_store.forms import LearnedLabels, Manifest
from services.runs_api.metric_table import MetricTable

SCORES = "evaluation/student/"
VERSION = SCORES + "policy_version"
ABOUT_AN_EVALUATION = ("policy_version", "num_images", "seconds", "iteration")


@dataclass(frozen=True)
class File:
    """One part of a checkpoint."""

    name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class Checkpoint:
    """One folder."""

    name: str
    path: Path
    written_at: float
    """Unix time."""
    iteration: int
    policy_version: int
    surrogate_version: int
    config_hash: str
    files: list[File]
    scores: dict[str, float]
    """Held-out scores of this very generator, where it was evaluated."""
    labels: LearnedLabels | None
    """None where it was not recorded."""

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.num_bytes for file in self.files)


def checkpoints_of(folder: Path, table: MetricTable | None = None) -> list[Checkpoint]:
    """Whole checkpoints under `folder`, the newest first; with the scores that the table has."""
    found = []
    for path in list_checkpoints(folder):
        try:
            written_at = (path / MANIFEST).stat().st_mtime
            manifest = Manifest.model_validate(read_manifest(path))
        except (ValueError, FileNotFoundError):  # damaged, or the run has just removed it
            continue
        facts, files = manifest.facts, sorted(manifest.files.items())
        found.append(
            Checkpoint(
                path.name,
                path,
                written_at,
                facts.iteration,
                facts.policy_version,
                facts.surrogate_version,
                facts.config_hash,
                [File(name, file.sha256, file.num_bytes) for name, file in files],
                {} if table is None else scores_of(table, facts.policy_version),
                facts.workers.replay.labels,
            )
        )
    return found


def scores_of(table: MetricTable, policy_version: int) -> dict[str, float]:
    """Held-out scores of the averaged generator of that version; empty where it has none."""
    if VERSION not in table.names:
        return {}
    versions = table.series(VERSION, max_points=2**31)
    steps = [
        step
        for step, value in zip(versions.steps, versions.values, strict=True)
        if value == policy_version
    ]
    if not steps:
        return {}
    found = {}
    for name in table.names:
        short = name.removeprefix(SCORES)
        if name.startswith(SCORES) and short not in ABOUT_AN_EVALUATION:
            values = table.series(name, steps[-1], steps[-1]).values
            if values and values[-1] is not None:
                found[short] = values[-1]
    return found
