"""`tdm-r1 export`: a generator that diffusers loads."""

from pathlib import Path

from services.commands.artifacts import check_weights, find_generator
from services.commands.console import show
from services.export import export as write
from services.run_store.run_folder import find_run


def export(
    source: str, runs: Path, out: Path | None, weights: str, checkpoint: str | None, as_json: bool
) -> None:
    """Write the generator and say how to load it."""
    check_weights(weights, ("ema", "generator"))
    folder = find_generator(source, runs, checkpoint)
    target = out or find_run(runs, source).export
    card = write(folder, target, averaged=weights == "ema")
    lines = [f"exported to {target}; in Python:", *card["use"]]
    show(card | {"path": str(target)}, as_json, "\n".join(lines))
