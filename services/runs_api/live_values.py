"""Live parameters of a run as they are now: what its config says, and what was set since."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from services.run_store.arguments import LIVE
from services.run_store.run_folder import RunFolder


def live_values(folder: RunFolder, facts: Mapping[str, Any]) -> dict[str, float | None]:
    """By key; None where the config does not say. `facts` are of the run's status."""
    values: dict[str, float | None] = dict.fromkeys(LIVE)
    if folder.config.is_file():
        values |= _configured(folder.config, folder.config.stat().st_mtime_ns)
    for change in facts.get("changes", []):
        values |= {key: after for key, (_, after) in change["values"].items() if key in LIVE}
    return values


@lru_cache(maxsize=64)  # a page looks again every few seconds, and a config stays as it is
def _configured(path: Path, *version: int) -> dict[str, float | None]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML ({error}); it was changed by hand") from error
    return {key: _at(tree, key) for key in LIVE}


def _at(tree: Any, key: str) -> float | None:
    for name in key.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if isinstance(tree, int | float) else None
