"""`tdm-r1 promote`: the checkpoint of a run that people stand by."""

from dataclasses import asdict
from pathlib import Path

from services.commands.console import show
from services.run_store.promoted import promote as mark
from services.run_store.run_folder import find_run


def promote(name: str, runs: Path, checkpoint: str, as_json: bool) -> None:
    """Promote it, whether the run goes on or has ended; ValueError where there is none."""
    run = find_run(runs, name)
    promotion = mark(run, checkpoint)
    show(
        {"run_id": run.id, **asdict(promotion)},
        as_json,
        f"promoted {promotion.checkpoint} of {run.id}; use it: "
        f"tdm-r1 export {run.id} --checkpoint promoted",
    )
