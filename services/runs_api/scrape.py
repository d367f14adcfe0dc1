"""What live runs tell, for Prometheus: looked up at each scrape, so that no copy goes stale.

A run that has ended is not told any more. A number that is missing is absent, never zero.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from services.run_store.run_folder import ENDED
from services.runs_api.checkpoints import checkpoints_of
from services.runs_api.glance import Glance
from services.runs_api.library import Library, OpenRun
from services.runs_api.workers import workers_of


@dataclass(frozen=True)
class _Number:
    """A number of a run that is one of Prometheus' too."""

    metric: str
    pattern: str
    """Of the run's name for it; its groups are the labels."""
    labels: tuple[str, ...]
    help: str


NUMBERS = (
    _Number("reward_mean", r"reward/([^/]+)/mean", ("reward",), "Mean reward of the rollouts."),
    _Number("reward_std", r"reward/([^/]+)/std", ("reward",), "And its standard deviation."),
    _Number(
        "step_reward_mean",
        r"reward/([^/]+)/step_(\d+)",
        ("reward", "denoise_step"),
        "Mean reward by denoising step.",
    ),
    _Number(
        "evaluation_score", r"evaluation/student/([^/]+)", ("reward",), "Held-out score of the EMA."
    ),
    _Number("zero_signal_ratio", r"advantage/zero_signal", (), "Groups without contrast."),
    _Number("advantage_clipped_ratio", r"advantage/clipped", (), "Advantages that were clipped."),
    _Number(
        "staleness_steps",
        r"replay/staleness_(generator|surrogate)_mean",
        ("learner",),
        "Mean staleness at the draw, in policy versions.",
    ),
    _Number("replay_groups", r"replay/(held|fresh|rewarded)", ("state",), "Groups in the buffer."),
    _Number("images_per_second", r"rollout/images_per_s", (), "Images rolled out a second."),
    _Number("phase_seconds", r"seconds/([^/]+)", ("phase",), "Of the newest iteration, by phase."),
)
"""`tdmr1_`, a label `run`, and the newest value."""


def known_of_runs(library: Library) -> list[Metric]:
    """Every live run of the folder."""
    live = [(run, facts) for run in library.all() if (facts := run.facts())["state"] not in ENDED]
    return [*_numbers(live), *_progress(live), *_workers(live), *_checkpoints(live)]


Live = Sequence[tuple[OpenRun, Mapping[str, Any]]]


def _numbers(live: Live) -> Iterator[Metric]:
    for number in NUMBERS:
        family = GaugeMetricFamily(
            f"tdmr1_{number.metric}", number.help, labels=("run", *number.labels)
        )
        for run, _ in live:
            with run.glance() as glance:
                for labels, value in _newest(glance, number.pattern):
                    family.add_metric((run.id, *labels), value)
        yield family


def _newest(glance: Glance, pattern: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, point in sorted(glance.newest.items()):
        found = re.fullmatch(pattern, name)
        if found and point.value is not None:
            yield found.groups(), point.value


def _progress(live: Live) -> Iterator[Metric]:
    step = GaugeMetricFamily("tdmr1_train_step", "Iterations that are done.", labels=["run"])
    time = GaugeMetricFamily(
        "tdmr1_last_step_timestamp_seconds", "When the newest one ended.", labels=["run"]
    )
    age = GaugeMetricFamily("tdmr1_run_news_age_seconds", "Age of the status.", labels=["run"])
    for run, facts in live:
        with run.glance() as glance:
            if glance.times:
                step.add_metric((run.id,), glance.step)
                time.add_metric((run.id,), glance.times[-1])
        if facts["age_s"] is not None:
            age.add_metric((run.id,), facts["age_s"])
    yield from (step, time, age)


def _workers(live: Live) -> Iterator[Metric]:
    labels = ("run", "role", "worker")
    up = GaugeMetricFamily("tdmr1_worker_up", "1 alive, 0 dead; absent if unknown.", labels=labels)
    restarts = CounterMetricFamily("tdmr1_worker_restarts", "Restarts.", labels=labels)
    for run, facts in live:
        for worker in workers_of(facts):
            if worker.state in ("alive", "dead"):
                up.add_metric((run.id, worker.role, worker.name), worker.state == "alive")
            restarts.add_metric((run.id, worker.role, worker.name), worker.restarts)
    yield from (up, restarts)


def _checkpoints(live: Live) -> Iterator[Metric]:
    time = GaugeMetricFamily(
        "tdmr1_checkpoint_timestamp_seconds", "When the newest one was written.", labels=["run"]
    )
    size = GaugeMetricFamily("tdmr1_checkpoint_bytes", "Its size.", labels=["run"])
    for run, _ in live:
        found = checkpoints_of(run.folder.checkpoints)
        if found:
            time.add_metric((run.id,), found[0].written_at)
            size.add_metric((run.id,), found[0].num_bytes)
    yield from (time, size)
