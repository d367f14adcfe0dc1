"""What somebody should look at: rules over a run's numbers and its status, and what the run itself
has raised (alerts.jsonl).

A rule over numbers is raised after `hold` lines at or above one threshold and cleared after as many
below another. It is worked out from the stored numbers each time, so that every reader, before and
after a restart, sees the same alerts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from services.run_store.alerts import standing
from services.run_store.run_folder import ENDED
from services.runs_api.metric_table import MetricTable, Series

Severity = Literal["warning", "critical"]
STALLED_TIMES = 3.0
STALLED_MIN_S = 60.0


@dataclass(frozen=True)
class Rule:
    """A number that must not stay high."""

    name: str
    metric: str
    """Its name, or its end where it begins with `*`: every number so named."""
    raise_at: float
    clear_below: float
    hold: int
    """Lines in a row that it takes, to raise and to clear."""
    severity: Severity
    title: str
    remedy: str
    out_of: str = ""
    """The evaluation's number that it is a count out of; it is a level of its own if empty."""


RULES = (
    Rule(
        "zero_signal",
        "advantage/zero_signal",
        0.4,
        0.3,
        3,
        "warning",
        "Many groups without contrast: their images all get the same reward",
        "an easier reward, larger groups or mixed prompts",
    ),
    Rule(
        "step_lost",
        "*/step_lost",
        0.5,
        0.5,
        1,
        "critical",
        "A step was not finite and is lost",
        "look at the losses of the Training page; lower the learning rate",
    ),
    Rule(
        "staleness",
        "replay/staleness_surrogate_mean",
        4.0,
        3.0,
        3,
        "warning",
        "The surrogate learns from old groups",
        "more reward workers, or fewer rollouts in flight",
    ),
    Rule(
        "invalid_rewards",
        "*/missing",
        0.2,
        0.1,
        1,
        "warning",
        "A reward does not answer for many held-out images",
        "`tdm-r1 logs` says why; see the states in the Gallery",
        out_of="num_images",
    ),
)


@dataclass(frozen=True)
class Episode:
    """From where a rule is raised to where it is cleared; indices into its values."""

    start: int
    end: int | None
    """None while it lasts."""
    peak: float


@dataclass(frozen=True)
class Alert:
    """One thing to look at."""

    rule: str
    severity: Severity
    title: str
    detail: str
    remedy: str
    raised_at: float
    """Unix time."""
    raised_step: int | None
    cleared_at: float | None
    """None while it lasts."""
    cleared_step: int | None


def episodes(
    values: Sequence[float | None], raise_at: float, clear_below: float, hold: int
) -> list[Episode]:
    """When a number was too high. A missing value neither raises nor clears."""
    found: list[Episode] = []
    start, peak, run = None, 0.0, 0
    for index, value in enumerate(values):
        if value is None:
            continue
        run = run + 1 if (value >= raise_at if start is None else value < clear_below) else 0
        if start is not None:
            peak = max(peak, value)
        if run == hold and start is None:
            start, peak, run = index, value, 0
        elif run == hold and start is not None:
            found.append(Episode(start, index, peak))
            start, run = None, 0
    return found if start is None else [*found, Episode(start, None, peak)]


def alerts_of(
    facts: Mapping[str, Any],
    table: MetricTable,
    raised_by_run: Sequence[Mapping[str, Any]],
    now: float,
) -> list[Alert]:
    """Every alert of a run, those that last first and the newest of them first."""
    found = [
        *(alert for rule in RULES for alert in _of_numbers(rule, table)),
        *_of_status(facts, table, now),
        *(_of_run(line) for line in standing(raised_by_run)),
    ]
    return sorted(found, key=lambda alert: (alert.cleared_at is None, alert.raised_at))[::-1]


def _of_numbers(rule: Rule, table: MetricTable) -> list[Alert]:
    is_end = rule.metric.startswith("*")
    names = [
        name
        for name in table.names
        if (name.endswith(rule.metric[1:]) if is_end else name == rule.metric)
    ]
    return [alert for name in names for alert in _of_one_number(rule, name, table)]


def _of_one_number(rule: Rule, name: str, table: MetricTable) -> list[Alert]:
    series = table.series(name, max_points=2**31)
    return [
        Alert(
            rule.name,
            rule.severity,
            rule.title,
            f"{name} reached {episode.peak:.3g}; the limit is {rule.raise_at:g}",
            rule.remedy,
            series.times[episode.start],
            series.steps[episode.start],
            None if episode.end is None else series.times[episode.end],
            None if episode.end is None else series.steps[episode.end],
        )
        for episode in episodes(
            _levels(rule, series, table), rule.raise_at, rule.clear_below, rule.hold
        )
    ]


def _levels(rule: Rule, series: Series, table: MetricTable) -> list[float | None]:
    """The numbers, or the shares that they are: `evaluation/student/ocr/missing` is a count out of
    `evaluation/student/num_images`."""
    if not rule.out_of:
        return series.values
    name = "/".join([*series.name.split("/")[:2], rule.out_of])
    if name not in table.names:
        return [None] * len(series.values)
    whole = table.series(name, max_points=2**31)
    wholes = dict(zip(whole.steps, whole.values, strict=True))
    shares: list[float | None] = []
    for step, count in zip(series.steps, series.values, strict=True):
        of = wholes.get(step)
        shares.append(count / of if count is not None and of else None)
    return shares


def _of_status(facts: Mapping[str, Any], table: MetricTable, now: float) -> list[Alert]:
    state, since = facts["state"], facts.get("updated_at", now)
    found = []

    def add(rule: str, severity: Severity, title: str, detail: str, remedy: str) -> None:
        step = facts.get("iteration")
        found.append(Alert(rule, severity, title, detail, remedy, since, step, None, None))

    if state == "failed":
        last = str(facts.get("error", "")).strip().splitlines()
        add("failed", "critical", "The run failed", last[-1] if last else "", "see its log")
    if state == "silent":
        detail = f"no news for {facts['age_s']:.0f} s"
        remedy = f"is process {facts.get('pid')} on {facts.get('node')} there? see its log"
        add("silent", "critical", "The run is silent", detail, remedy)
    if state not in (*ENDED, "silent"):
        for name, said in facts.get("workers", {}).items():
            if not said["alive"] and said["pids"]:  # one without has not started yet
                remedy = "it is started again where that is safe; see the log"
                add("worker_dead", "critical", f"Worker {name} is dead", "", remedy)
    if state == "running" and (stalled_s := stalled(table, now)) is not None:
        detail = f"no iteration for {stalled_s:.0f} s; waits: {facts.get('waiting') or 'none'}"
        add("stalled", "warning", "No iteration ends", detail, "see Throughput and the log")
    return found


def stalled(table: MetricTable, now: float) -> float | None:
    """Seconds since the last iteration where that is far longer than iterations take."""
    if len(table) < 2:
        return None
    gaps = [after - before for before, after in pairwise(table.times[-50:])]
    gone = now - table.times[-1]
    limit = max(STALLED_MIN_S, STALLED_TIMES * statistics.median(gaps))
    return gone if gone > limit else None


def _of_run(line: Mapping[str, Any]) -> Alert:
    return Alert(
        str(line.get("rule", "run")),
        "critical" if line.get("severity") == "critical" else "warning",
        str(line.get("title") or line.get("rule", "The run raised an alert")),
        str(line.get("detail", "")),
        str(line.get("remedy", "")),
        float(line.get("time", 0.0)),
        line.get("step"),
        line.get("cleared_at"),
        line.get("cleared_step"),
    )
