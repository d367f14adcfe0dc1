"""What somebody should look at: rules over a run's numbers (rules.py) and its status, and what the
run itself has raised (alerts.jsonl).

All of it is worked out from what is stored, so that every reader, before and after a restart, sees
the same alerts.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.run_store.news import news_of, waits_of
from services.run_store.run_folder import ENDED
from services.run_store.vitals import WELL_S
from services.runs_api.glance import Glance
from services.runs_api.rules import RULES, Hysteresis, Moment, Severity

STALLED_TIMES = 3.0
STALLED_MIN_S = 60.0
STALLED_CLEAR = 3
"""Iterations in a row that end a stall."""


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
    facts: Mapping[str, Any], glance: Glance, raised_by_run: Sequence[Mapping[str, Any]]
) -> list[Alert]:
    """Every alert of a run, those that last first and the newest of them first; what the run has
    raised as `standing` tells. Times are by the run's own clock."""
    now = facts.get("updated_at", 0.0) + (facts["age_s"] or 0.0)
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


def _of_status(facts: Mapping[str, Any], glance: Glance, now: float) -> Iterator[Alert]:
    state = facts["state"]
    if state == "failed":
        last = str(facts.get("error", "")).strip().splitlines()
        since = facts.get("updated_at", now)
        title, detail = "The run failed", last[-1] if last else ""
        yield _alert(facts, "failed", "critical", title, detail, "see its log", since)
    if (ahead := facts.get("clock_ahead_s")) is not None:
        title = f"The clock of {facts.get('node')} is ahead"
        detail = f"its status is {ahead:.0f} s ahead of this machine's clock"
        remedy = "set both clocks (NTP): until then ages and deadlines are wrong"
        yield _alert(facts, "clock", "warning", title, detail, remedy, now)
    yield from _silences(facts, now)
    if state not in (*ENDED, "silent"):
        yield from _deaths(facts, now)
    if state == "running" and (found := stalled(glance.times, now)) is not None:
        since, seconds = found
        detail = f"one takes {seconds:.0f} s; waits: {', '.join(waits_of(facts)) or 'none'}"
        remedy = "see Throughput and the log"
        yield _alert(facts, "stalled", "warning", "No iteration ends", detail, remedy, since)


def _silences(facts: Mapping[str, Any], now: float) -> Iterator[Alert]:
    """The one that lasts, or the newest: over once the run has spoken for `WELL_S`."""
    written, before = facts.get("updated_at", now), facts.get("silence")
    remedy = f"is process {facts.get('pid')} on {facts.get('node')} there? see its log"
    if facts["state"] == "silent":
        since = written
        if before is not None and written - before["until"] < WELL_S:
            since = before["from"]
        detail = news_of(facts)
        yield _alert(facts, "silent", "critical", "The run is silent", detail, remedy, since)
    elif before is not None:
        detail = f"there was no news for {before['until'] - before['from']:.0f} s"
        over = _over(facts, before["until"], now)
        title = "The run was silent"
        yield _alert(facts, "silent", "critical", title, detail, remedy, before["from"], over)


def _deaths(facts: Mapping[str, Any], now: float) -> Iterator[Alert]:
    """One a worker: over once it has lived for `WELL_S` again."""
    remedy = "it is started again where that is safe; see the log"
    for name, said in facts.get("workers", {}).items():
        died_at, since = said.get("died_at"), said.get("since")
        if not said["alive"] and said["pids"]:  # one without has not started yet
            since = died_at or since or facts.get("updated_at", now)
            title = f"Worker {name} is dead"
            yield _alert(facts, "worker_dead", "critical", title, "", remedy, since)
        elif died_at is not None and since is not None:
            title, detail = f"Worker {name} was dead", f"restarts: {said['restarts']}"
            over = _over(facts, since, now)
            yield _alert(facts, "worker_dead", "critical", title, detail, remedy, died_at, over)


def _over(facts: Mapping[str, Any], well_since: float, now: float) -> float | None:
    """When trouble is over that ended then: a while later, so that a flicker is one alert; None
    where that has not come yet. By the run's own clock."""
    over = well_since + WELL_S
    has_ended = facts["state"] in ENDED
    return over if has_ended or facts.get("updated_at", now) >= over else None


def _alert(
    facts: Mapping[str, Any],
    rule: str,
    severity: Severity,
    title: str,
    detail: str,
    remedy: str,
    since: float,
    over: float | None = None,
) -> Alert:
    """Of the iteration where its news ended, if they have."""
    step = facts.get("iteration") if facts["state"] in ("failed", "silent") else None
    return Alert(rule, severity, title, detail, remedy, since, step, over, None)


def stalled(times: Sequence[float], now: float) -> tuple[float, float] | None:
    """Since when, and for how many seconds, no iteration ends, which is far longer than they take;
    it lasts until `STALLED_CLEAR` of them have taken no longer than usual."""
    if len(times) < 2:
        return None
    gaps = [after - before for before, after in pairwise(times)]
    limit = max(STALLED_MIN_S, STALLED_TIMES * statistics.median(gaps))
    followed = Hysteresis(limit, limit, 1, STALLED_CLEAR)
    open_gap = [now - times[-1]] if now - times[-1] > limit else []
    for step, (start, gap) in enumerate(zip(times, [*gaps, *open_gap], strict=False)):
        followed.add(gap, Moment(start, step))
    lasting = followed.episodes[-1] if followed.episodes else None
    if lasting is None or lasting.end is not None:
        return None
    return lasting.start.time, lasting.peak


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
