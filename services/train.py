"""From a config to a summary: the run's folder, its workers, its controller, and their end."""

import asyncio
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.config import RunConfig
from services.controller import Controller
from services.crew import assemble, plan
from services.prompts import PromptSource, training_prompts
from services.run_store import commands
from services.run_store.run_folder import RunFolder, create_run, fill_run
from services.runtime.handles import Runtime
from services.runtime.waiting import Patience
from services.telemetry import Telemetry, TensorBoardWriter, WandbWriter, Writer


def train(config: RunConfig, run_folder: RunFolder | None = None) -> dict[str, Any]:
    """Run to the end; the summary, also written into the run's folder.

    Raises what a worker raised, with its traceback; the folder then has it too, in its status.
    """
    if run_folder is None:
        run_folder = create_run(config)
    else:
        fill_run(run_folder, config)
    with _events(run_folder):
        return asyncio.run(_train(config, run_folder))


async def _train(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    patience = Patience(config.cluster.heartbeat_s, config.cluster.deadline_s)
    prompts = PromptSource(training_prompts(config.prompts), config.run.seed)
    telemetry = Telemetry(folder.metrics, _writers(config, folder))
    runtime = _make_runtime(config, patience)
    folder.write_status({"state": "starting", "iteration": 0})
    try:
        handles = await runtime.start(plan(config, folder))
        crew = assemble(config, handles, runtime.hire if runtime.elastic else None)
        controller = Controller(config, crew, prompts, folder, telemetry, patience, runtime)
        if threading.current_thread() is threading.main_thread():
            controller.control.heed_signals()
        summary = await controller.run()
    except BaseException as fault:
        # Recorded for whoever looks at the folder; the caller gets it as it is.
        _record_fault(folder, fault)
        raise
    finally:
        await runtime.close()
        telemetry.close()
        commands.reject_unanswered(folder.path, "the run has ended")
    folder.write_summary(summary)
    controller.control.enter(summary["state"])
    return summary


def _record_fault(folder: RunFolder, fault: BaseException) -> None:
    error = "".join(traceback.format_exception(fault))
    interrupted = isinstance(fault, KeyboardInterrupt | asyncio.CancelledError)
    logging.getLogger(__name__).error("the run failed: %s", error)
    state = {"state": "stopped" if interrupted else "failed", "error": error}
    folder.write_status({**folder.status(), **state})


def _make_runtime(config: RunConfig, patience: Patience) -> Runtime:
    if config.cluster.runtime == "local":
        from services.runtime.local import LocalRuntime

        return LocalRuntime(patience)
    from services.runtime.cluster import ClusterRuntime

    return ClusterRuntime(patience, config.cluster.address, config.cluster.max_restarts)


def _writers(config: RunConfig, folder: RunFolder) -> list[Writer]:
    writers: list[Writer] = []
    if config.telemetry.tensorboard:
        writers.append(TensorBoardWriter(folder.path / "tensorboard"))
    if config.telemetry.wandb:
        writers.append(WandbWriter(folder.id, folder.path))
    return writers


@contextmanager
def _events(folder: RunFolder) -> Iterator[None]:
    """What `services` logs meanwhile goes into the run's events.log too."""
    handler = logging.FileHandler(folder.events)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("services")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
