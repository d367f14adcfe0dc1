"""Workers: who is there, who has died, what is waited for, what the run said."""

import time
from dataclasses import dataclass, replace

from services.dashboard.elements import chip, empty, table, tag
from services.dashboard.frame import TONES, Visit, ago
from services.dashboard.numbers import percent, short, size
from services.dashboard.panels import Board, Stamp, clock
from services.run_store.news import waits_of
from services.runs_api.library import OpenRun
from services.runs_api.metric_table import MetricTable
from services.runs_api.workers import Worker, workers_of

LOG_BYTES = 16 * 1024
POOL_COLUMNS = {
    "workers": ("workers",),
    "images waiting": ("queue_depth",),
    "images a second": ("images_per_s",),
    "seconds a batch, median / 95%": ("latency_p50_s", "latency_p95_s"),
    "failed": ("failed",),
    "expired": ("expired",),
}


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    node: str
    workers: list[Worker]
    heard: list[str]
    """How long ago each of them last answered."""
    resting: dict[str, str]
    """Those that get nothing to do for now, and why."""
    pools: list[list[str]]
    """What rollout and each reward do, a row each."""
    published_s: float | None
    """How long it took to publish the newest weights."""
    waiting: list[str]
    log: list[str]


def load(run: OpenRun) -> Model:
    """Everything as the last status has it."""
    facts = run.facts()
    stamp = Stamp(facts.get("updated_at"), facts.get("iteration"), facts.get("policy_version"))
    workers, now = workers_of(facts), time.time()
    with run.numbers() as table:
        pools = pools_of(table)
        published = table.latest("seconds/publish")
    return Model(
        stamp,
        str(facts.get("node", "-")),
        workers,
        [heard(worker, now) for worker in workers],
        facts.get("resting", {}),
        pools,
        published and published.value,
        waits_of(facts),
        newest_log(run),
    )


def pools_of(table: MetricTable) -> list[list[str]]:
    """A row for rollout and for each reward that workers judge, as the newest line has them."""
    pools = [name.removesuffix("/workers") for name in table.names if name.endswith("/workers")]
    return [
        [
            pool.rpartition("/")[2],
            *(_told(table, pool, *numbers) for numbers in POOL_COLUMNS.values()),
        ]
        for pool in sorted(pools, key=lambda pool: (pool != "rollout", pool))
    ]


def _told(table: MetricTable, pool: str, *numbers: str) -> str:
    points = [table.latest(f"{pool}/{number}") for number in numbers]
    return " / ".join(short(point.value) for point in points if point) or "-"


def heard(worker: Worker, now: float) -> str:
    """How long ago it answered, to 5 s; of a run that has ended nobody asks."""
    if worker.heard_at is None or worker.state == "ended":
        return "-"
    seconds = now - worker.heard_at
    return "just now" if seconds < 10 else ago(5 * int(seconds / 5))


def gpu(worker: Worker) -> str:
    """Memory and utilisation; a gap where there is none or nothing is known of it."""
    if worker.state not in ("alive", "resting", "dead"):
        return "-"
    told = [
        f"{size(each.used_bytes)} of {size(each.total_bytes)}"
        + ("" if each.utilisation is None else f", {percent(each.utilisation)} busy")
        for each in worker.gpus
    ]
    return "; ".join(told) or "-"


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
    board = Board(run.id, lambda: load(run))

    def panels() -> None:
        board.panel(
            "Workers",
            _workers,
            wide=True,
            of=lambda model: (_drawn(model.workers), model.heard, model.resting),
        )
        board.panel(
            "Rollout and rewards",
            _pools,
            wide=True,
            of=lambda model: (model.pools, model.published_s),
        )
        board.panel("Waits", _waits, wide=True, of=lambda model: model.waiting)
        board.panel("Log, newest first", _log, wide=True, of=lambda model: model.log)

    await board.start(panels)


def _drawn(workers: list[Worker]) -> list[Worker]:
    """All that is shown of them besides how long ago they answered."""
    return [replace(worker, heard_at=None) for worker in workers]


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
            said,
            gpu(worker),
        ]
        for worker, said in zip(model.workers, model.heard, strict=True)
    ]
    table(
        ("worker", "role", "state", "since", "processes", "restarts", "answered", "GPU"),
        rows,
        "Workers",
    )
    for name, why in model.resting.items():
        tag("p", f"{name} rests: {why}")
    tag("p", f"The run itself is on {model.node}.", "quiet")


def _pools(model: Model) -> None:
    if not model.pools:
        empty("Nothing told yet.")
        return
    table(("", *POOL_COLUMNS), model.pools, "What rollout and rewards do")
    published = f"{short(model.published_s)} s to publish the newest weights. "
    about = "As the run told last; failed and expired are images of one iteration."
    tag("p", published * (model.published_s is not None) + about, "quiet")


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
