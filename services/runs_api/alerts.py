"""What somebody should look at: rules over a run's numbers (rules.py) and its status, and what the
run itself has raised (alerts.jsonl).

All of it is worked out from what is stored, so that every reader, before and after a restart, sees
the same alerts.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.run_store.run_folder import ENDED
from services.runs_api.glance import Glance
from services.runs_api.rules import RULES, Severity

STALLED_TIMES = 3.0
STALLED_MIN_S = 60.0


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


def alerts_of(
    facts: Mapping[str, Any], glance: Glance, raised_by_run: Sequence[Mapping[str, Any]], now: float
) -> list[Alert]:
    """Every alert of a run, those that last first and the newest of them first; what the run has
    raised as `standing` tells."""
    found = [
        *_of_numbers(glance),
        *_of_status(facts, glance, now),
        *(_of_run(line) for line in raised_by_run),
    ]
    return sorted(found, key=lambda alert: (alert.cleared_at is None, alert.raised_at))[::-1]


def _of_numbers(glance: Glance) -> list[Alert]:
    rules = {rule.name: rule for rule in RULES}
    return [
        Alert(
            rules[name].name,
            rules[name].severity,
            rules[name].title,
            f"{number} reached {episode.peak:.3g}; the limit is {rules[name].raise_at:g}",
            rules[name].remedy,
            episode.start.time,
            episode.start.step,
            None if episode.end is None else episode.end.time,
            None if episode.end is None else episode.end.step,
        )
        for (name, number), followed in glance.followed.items()
        for episode in followed.episodes
    ]


def _of_status(facts: Mapping[str, Any], glance: Glance, now: float) -> list[Alert]:
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
    if state == "running" and (stalled_s := stalled(glance.times, now)) is not None:
        detail = f"no iteration for {stalled_s:.0f} s; waits: {facts.get('waiting') or 'none'}"
        add("stalled", "warning", "No iteration ends", detail, "see Throughput and the log")
    return found


def stalled(times: Sequence[float], now: float) -> float | None:
    """Seconds since the last of the lines where that is far longer than iterations take."""
    if len(times) < 2:
        return None
    gaps = [after - before for before, after in pairwise(times)]
    gone = now - times[-1]
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
