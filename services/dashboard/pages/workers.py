"""Workers: who is there, who has died, what is waited for, what the run said."""

from dataclasses import dataclass

from services.dashboard.elements import chip, empty, table, tag
from services.dashboard.frame import TONES, Visit
from services.dashboard.panels import Board, Stamp, clock
from services.run_store.news import waits_of
from services.runs_api.library import OpenRun
from services.runs_api.workers import Worker, workers_of

LOG_BYTES = 16 * 1024


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    node: str
    workers: list[Worker]
    waiting: list[str]
    log: list[str]


def load(run: OpenRun) -> Model:
    """Everything as the last status has it."""
    facts = run.facts()
    stamp = Stamp(facts.get("updated_at"), facts.get("iteration"), facts.get("policy_version"))
    return Model(
        stamp, str(facts.get("node", "-")), workers_of(facts), waits_of(facts), newest_log(run)
    )


def newest_log(run: OpenRun) -> list[str]:
    """The end of what the run said, in whole lines."""
    path = run.folder.events
    if not path.exists():
        return []
    with path.open("rb") as file:
        start = max(0, path.stat().st_size - LOG_BYTES)
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return lines[1:] if start else lines


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(lambda: load(run), lambda model: model.stamp)

    def panels() -> None:
        board.panel("Workers", _workers, wide=True, of=lambda model: model.workers)
        board.panel("Waits", _waits, of=lambda model: model.waiting)
        board.panel("Log, newest first", _log, wide=True, of=lambda model: model.log)

    await board.start(panels)


def _workers(model: Model) -> None:
    if not model.workers:
        empty("The run has not said yet who works for it.")
        return
    if any(worker.state == "unknown" for worker in model.workers):
        tag("p", "The run is silent: how its workers are, nobody knows.", "quiet")
    rows = [
        [
            worker.name,
            worker.role,
            lambda worker=worker: chip(worker.state, TONES.get(worker.state, "calm")),
            "-" if worker.since is None else clock(worker.since),
            ", ".join(map(str, worker.pids)),
            str(worker.restarts),
        ]
        for worker in model.workers
    ]
    table(
        ("worker", "role", "state", "since", "processes", "restarts"),
        rows,
        f"Workers on {model.node}",
    )


def _waits(model: Model) -> None:
    if not model.waiting:
        empty("Nothing is waited for longer than a heartbeat.")
    for wait in model.waiting:
        tag("p", wait)


def _log(model: Model) -> None:
    if not model.log:
        empty("The run has said nothing yet.")
        return
    tag("pre", "\n".join(reversed(model.log)), "log", tabindex="0")
