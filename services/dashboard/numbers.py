"""Which of a run's numbers the pages show, and how they are read."""

from collections.abc import Iterable
from dataclasses import replace

from services.dashboard.charts import Curve
from services.dashboard.panels import Stamp
from services.runs_api.library import OpenRun
from services.runs_api.metric_table import MetricTable, Stack

MAX_POINTS = 600
MAX_COLUMNS = 200
HELD_OUT = "evaluation/student/"
BAND = "The band is from the 10th to the 90th percentile of an iteration's images."


def reward_names(numbers: Iterable[str]) -> list[str]:
    """Rewards that judge rollouts."""
    ends = "/mean"
    names = [name.removeprefix("reward/") for name in numbers if name.startswith("reward/")]
    return sorted(name.removesuffix(ends) for name in names if name.endswith(ends))


def reward_band(table: MetricTable, name: str) -> Curve:
    """The mean of a reward of the rollouts, and from its 10th to its 90th percentile."""
    numbers = [f"reward/{name}/{which}" for which in ("mean", "p10", "p90")]
    known = [number for number in numbers if number in table.names]
    mean, *edges = table.together(known, max_points=MAX_POINTS)
    return Curve(name, mean, (edges[0], edges[1]) if len(edges) == 2 else None)


def waiting_for_rewards(table: MetricTable) -> list[str]:
    """The lengths of rewards' queues."""
    return [name for name in table.names if name.endswith("/queue_depth")]


def evaluation_names(table: MetricTable) -> list[str]:
    """Rewards that judge the held-out prompts: the whole, without parts and tags."""
    names = [name.removeprefix(HELD_OUT) for name in table.names if name.startswith(HELD_OUT)]
    about = ("num_images", "seconds", "policy_version", "iteration")
    return [name for name in names if "/" not in name and name not in about]


def held_out_curve(table: MetricTable, name: str) -> Curve:
    """A held-out score at the iterations that the evaluations are of: of one that ran beside
    training a later line tells."""
    numbers = [HELD_OUT + name, f"{HELD_OUT}iteration"]
    known = [number for number in numbers if number in table.names]
    score, *told = table.together(known, max_points=MAX_POINTS)
    if told:
        own = zip(score.steps, told[0].values, strict=True)
        score = replace(score, steps=[step if of is None else int(of) for step, of in own])
    return Curve(name, score)


def curve(table: MetricTable, name: str, label: str = "") -> Curve:
    """One number."""
    return Curve(label or name, table.series(name, max_points=MAX_POINTS))


def curves(table: MetricTable, names: Iterable[str], drop: str = "") -> list[Curve]:
    """Numbers of these names, where they are told; `drop` is left out of the labels, and a stage
    that all of them are of."""
    wanted = list(names)
    stages = {name.partition("/")[0] for name in wanted}
    drop = drop or (f"{stages.pop()}/" if len(stages) == 1 else "")
    known = set(table.names)
    return [curve(table, name, name.removeprefix(drop)) for name in wanted if name in known]


def phases(table: MetricTable) -> Stack:
    """Seconds of an iteration by phase, over the whole run."""
    stack = table.stack(_phase_names(table), MAX_COLUMNS)
    return Stack(stack.spans, {_phase(name): means for name, means in stack.parts.items()})


def newest_phases(table: MetricTable, num_iterations: int) -> dict[str, float]:
    """Seconds by phase over the newest iterations."""
    first = table.steps[-1] - num_iterations + 1 if len(table) else None
    told = {_phase(name): table.series(name, first).values for name in _phase_names(table)}
    return {name: sum(value or 0.0 for value in values) for name, values in told.items()}


def _phase_names(table: MetricTable) -> list[str]:
    """None that is part of another, and not the whole."""
    names = [name for name in table.names if name.startswith("seconds/") and name.count("/") == 1]
    return [name for name in names if name != "seconds/iteration"]


def _phase(name: str) -> str:
    return name.removeprefix("seconds/")


def newest(table: MetricTable, run: OpenRun) -> Stamp:
    """When the run's numbers are from; its status where there are none yet."""
    if len(table):
        about = table.times[-1], table.steps[-1], table.policy_versions[-1]
        return Stamp(*about, table.num_skipped)
    return Stamp(run.facts().get("updated_at"), num_skipped=table.num_skipped)


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{value:.0%}"


def short(value: float | None, digits: int = 3) -> str:
    """A number as a tile has it."""
    return "-" if value is None else f"{value:.{digits}g}"


def duration(seconds: float, digits: int = 1) -> str:
    """A time that something took, in a unit that fits."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.{digits}f} s"


def signed(value: float | None) -> str:
    """A number of which the sign matters."""
    return "-" if value is None else f"{value:+.3f}"


def size(num_bytes: float) -> str:
    """Bytes, in a unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024 or unit == "GiB":
            break
        num_bytes /= 1024
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
