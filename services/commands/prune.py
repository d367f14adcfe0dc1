"""`tdm-r1 prune`: old rollout images of a run that has ended make room."""

from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from services.commands.console import show
from services.config import RetentionConfig
from services.config_keys import readable
from services.run_store.news import facts_of
from services.run_store.retention import Retention
from services.run_store.run_folder import ENDED, find_run


def prune(
    name: str,
    runs: Path,
    last_iterations: int | None,
    max_bytes: int | None,
    only_count: bool,
    as_json: bool,
) -> None:
    """Apply a rule once; a run that is alive applies its own (telemetry.retention)."""
    try:
        rule = RetentionConfig(last_iterations=last_iterations, max_bytes=max_bytes)
    except ValidationError as error:
        raise ValueError(readable(error, "prune")) from error
    if rule.keeps_all:
        raise ValueError("no rule: give --last-iterations, --max-bytes, or both")
    folder = find_run(runs, name)
    state = facts_of(folder)["state"]
    if state not in (*ENDED, "silent"):
        raise ValueError(
            f"run {folder.id} is {state} and removes images by itself; set telemetry.retention in "
            "its config, or wait for its end"
        )
    retention = Retention(folder, rule)
    removed = retention.apply(only_count)
    left = {"num_bytes_left": retention.num_bytes, "num_groups_wanted": retention.num_wanted}
    did = "would remove" if only_count else "removed"
    text = (
        f"{did} {removed.num_images} images of {removed.num_groups} groups, "
        f"{removed.num_bytes / 1e6:.1f} MB; {left['num_groups_wanted']} groups stay since people "
        "were asked about them"
    )
    show(asdict(removed) | left | {"is_removed": not only_count}, as_json, text)
