"""`tdm-r1 train`: check, make the run folder, train with a view beside it, say what came of it."""

import logging
import shlex
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.logging import RichHandler

from services.commands.console import err, note, out, print_json, say
from services.config import RunConfig, load_config, resolved_yaml
from services.run_store.run_folder import RunFolder, create_run

PARTS = ("program", "weights", "training", "activations", "data")
"""Of `services.plan.Memory`."""
HEADINGS = ("program", "nets", "train", "pass", "data")
"""The same, short enough for a narrow terminal."""
EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143}


def train(config_file: str, overrides: list[str], as_json: bool) -> int:
    """Train to the end; the exit code. Faults before the first worker are ValueErrors."""
    config = load_config(config_file, overrides)
    check_inputs(config)
    folder = create_run(config, Path(config_file).stem)
    summary = watched_train(config, folder)
    if summary is None:
        return 1
    if as_json:
        print_json(summary)
    else:
        say(f"{summary['state']} after {summary['iterations']} iterations: {folder.path}")
    return exit_code(summary)


def exit_code(summary: dict[str, Any]) -> int:
    """0, or what a signal that ended the run asks for."""
    return EXIT_CODES.get(str(summary.get("reason", "")).partition(";")[0], 0)


def check_inputs(config: RunConfig) -> None:
    """Read every prompt and build every reward; ValueError names the first that will not do."""
    from services.prompts import read_prompts
    from services.reward.worker import check_requirements

    heldout = read_prompts(config.prompts.heldout) if config.prompts.heldout is not None else []
    prompts = read_prompts(config.prompts.train) + heldout
    for reward in config.automatic_rewards:
        check_requirements(reward, prompts)
    for reward in config.evaluation.rewards:  # these never judge an image of a training prompt
        check_requirements(reward, heldout)
    if config.human_reward is not None:
        from services.reward.human import check_service

        check_service(config.human_reward)


def watched_train(config: RunConfig, folder: RunFolder) -> dict[str, Any] | None:
    """The summary; None after a fault, whose traceback has been shown."""
    from services.commands.progress import Watch
    from services.train import train as run

    note(f"run folder: {folder.path}")
    note(f"watch it: tdm-r1 dashboard --runs {shlex.quote(str(folder.path.parent))}")
    shown = RichHandler(logging.WARNING, console=err, show_path=False, show_time=False)
    # All the rest goes to the run's events.log.
    logging.basicConfig(handlers=[shown], format="%(message)s")
    try:
        with Watch(folder, config.run.iterations):
            return run(config, folder)
    except Exception as fault:  # whatever a worker raised: shown whole, and told by the exit code
        traceback.print_exception(fault, file=err.file)
        note(f"the run failed; its log: {folder.events}")
        return None


def dry_run(config_file: str, overrides: list[str], as_json: bool) -> None:
    """The resolved tree, who runs where, and what memory that takes; nothing is started."""
    from services.plan import estimate

    config = load_config(config_file, overrides)
    plan = estimate(config)
    if as_json:
        print_json({"config": config.model_dump(mode="json"), "plan": asdict(plan)})
        return
    say(resolved_yaml(config))
    out.print(_table(plan))
    for remark in plan.remarks:
        say(remark)


def _table(plan: Any) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title="placement, and estimated memory of each process in GB", box=SIMPLE)
    table.add_column("process", min_width=20, overflow="fold")
    for name in ("ranks", "CPUs", "GPUs", *HEADINGS, "total"):
        table.add_column(name, justify="right")
    for process in plan.processes:
        several = "" if len(process.workers) == 1 else f" ({', '.join(process.workers)})"
        sizes = [getattr(process.memory, part) for part in (*PARTS, "total")]
        table.add_row(
            process.name + several + (" (on standby)" if process.standby else ""),
            str(process.ranks),
            f"{process.num_cpus:g}",
            f"{process.num_gpus:g}",
            *(f"{size / 1e9:.2f}" for size in sizes),
        )
    cpus, gpus = f"{plan.num_cpus:g}", f"{plan.num_gpus:g}"
    blanks = [""] * len(PARTS)
    table.add_row("in all", "", cpus, gpus, *blanks, f"{plan.total_bytes / 1e9:.2f}")
    return table
