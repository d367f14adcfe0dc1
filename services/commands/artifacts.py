"""From what a person types to a folder that holds a generator."""

from pathlib import Path

from services.manifest import CARD, MANIFEST
from services.run_store.promoted import promoted, promoted_checkpoint
from services.run_store.run_folder import find_run, list_runs


def find_generator(source: str, runs: Path, checkpoint: str | None) -> Path:
    """A checkpoint, an export, or a run (whose newest checkpoint is meant); ValueError if none.

    `promoted` as the source is that of the newest run that has one, as the checkpoint the run's.
    """
    if source == "promoted" and checkpoint is None and not Path(source).exists():
        return _newest_promoted(runs)
    path = Path(source)
    if checkpoint is None and any((path / name).is_file() for name in (MANIFEST, CARD)):
        return path
    if path.is_dir() and not (path / "run.json").is_file():
        raise ValueError(
            f"{path} is a folder, but no run, checkpoint or export (no run.json, {MANIFEST} or "
            f"{CARD}); give a run's name, or a folder such as {runs}/RUN/checkpoints/step_000100"
        )
    run = find_run(runs, source)
    if checkpoint is None:
        return run.path
    if checkpoint == "promoted":
        return promoted_checkpoint(run)
    if checkpoint.isdecimal():
        return run.checkpoints / f"step_{int(checkpoint):06d}"
    return Path(checkpoint)


def _newest_promoted(runs: Path) -> Path:
    for run in list_runs(runs):
        if promoted(run) is not None:
            return promoted_checkpoint(run)
    raise ValueError(f"no run in {runs} has a promoted checkpoint; tdm-r1 promote makes one")


def check_weights(weights: str, allowed: tuple[str, ...]) -> None:
    """ValueError for a kind of weights that the command does not know."""
    if weights not in allowed:
        raise ValueError(f"--weights {weights!r}: allowed are {', '.join(allowed)}")
