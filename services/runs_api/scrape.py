"""What live runs tell, for Prometheus: looked up at each scrape, so that no copy goes stale.

A run that has ended is not told any more. A number that is missing is absent, never zero.
"""

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

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
        "surrogate_agreement_ratio",
        r"surrogate/agreement/step_(\d+)",
        ("denoise_step",),
        "Pairs of a group's images that the surrogate orders as their rewards do.",
    ),
    _Number(
        "evaluation_score", r"evaluation/student/([^/]+)", ("reward",), "Held-out score of the EMA."
    ),
    _Number("zero_signal_ratio", r"advantage/zero_signal", (), "Groups without contrast."),
    _Number("advantage_clipped_ratio", r"advantage/clipped", (), "Advantages that were clipped."),
    _Number("replay_groups", r"replay/(held|fresh|rewarded)", ("state",), "Groups in the buffer."),
    _Number("images_per_second", r"rollout/images_per_s", (), "Images rolled out a second."),
    _Number(
        "remote_reward_queue_depth",
        r"reward/([^/]+)/queue_depth",
        ("reward",),
        "Images that wait for a worker of the reward.",
    ),
)
"""`tdmr1_`, a label `run`, and the newest value."""

COUNTERS = {
    "images_generated": ((), "Images rolled out."),
    "groups_dropped": (("reason",), "Groups that left the buffer and lacked that; some lack both."),
    "remote_reward_requests": (("reward", "outcome"), "Images that a reward was asked about."),
}
HISTOGRAMS = {
    "train_step_seconds": ((), "Between the ends of two iterations."),
    "phase_seconds": (("phase",), "Of an iteration, by phase; those of several workers add up."),
    "weight_sync_seconds": ((), "Until the new weights were on their way to rollout."),
    "staleness_steps": (("learner",), "Policy versions that a drawn group was old."),
    "remote_reward_seconds": (("reward",), "Of a reward's batch, its retries included."),
}
"""Name to labels and help; `tally` adds them up."""


def known_of_runs(library: Library) -> list[Metric]:
    """Every live run of the folder, and the disk that it lies on."""
    live = [(run, facts) for run in library.all() if (facts := run.facts())["state"] not in ENDED]
    about = (_numbers, _tallies, _progress, _workers, _checkpoints)
    return [*(metric for each in about for metric in each(live)), *_disk(library.runs)]


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


def _tallies(live: Live) -> Iterator[Metric]:
    counters = {
        name: CounterMetricFamily(f"tdmr1_{name}", text, labels=("run", *labels))
        for name, (labels, text) in COUNTERS.items()
    }
    histograms = {
        name: HistogramMetricFamily(f"tdmr1_{name}", text, labels=("run", *labels))
        for name, (labels, text) in HISTOGRAMS.items()
    }
    for run, _ in live:
        with run.tally.looked_at() as tally:
            for (name, labels), value in sorted(tally.sums.items()):
                counters[name].add_metric((run.id, *labels), value)
            for (name, labels), spread in sorted(tally.spreads.items(), key=itemgetter(0)):
                histograms[name].add_metric((run.id, *labels), spread.buckets(), spread.total)
    yield from (*counters.values(), *histograms.values())


def _disk(runs: Path) -> Iterator[Metric]:
    """Nothing where there is no such folder (yet): /readyz says so."""
    if runs.is_dir():
        usage = shutil.disk_usage(runs)
        for name, what, value in (
            ("free", "What is free of the disk that runs are written to.", usage.free),
            ("size", "Its size.", usage.total),
        ):
            yield GaugeMetricFamily(f"tdmr1_disk_{name}_bytes", what, value)


def _progress(live: Live) -> Iterator[Metric]:
    step = GaugeMetricFamily("tdmr1_train_step", "Iterations that are done.", labels=["run"])
    ended = GaugeMetricFamily(
        "tdmr1_last_step_timestamp_seconds", "When the newest one ended.", labels=["run"]
    )
    age = GaugeMetricFamily("tdmr1_run_news_age_seconds", "Age of the status.", labels=["run"])
    for run, facts in live:
        with run.glance() as glance:
            if glance.times:
                step.add_metric((run.id,), glance.step)
                ended.add_metric((run.id,), glance.times[-1])
        if facts["age_s"] is not None:
            age.add_metric((run.id,), facts["age_s"])
    yield from (step, ended, age)


def _workers(live: Live) -> Iterator[Metric]:
    labels = ("run", "role", "worker")
    up = GaugeMetricFamily("tdmr1_worker_up", "1 alive, 0 dead; absent if unknown.", labels=labels)
    restarts = CounterMetricFamily("tdmr1_worker_restarts", "Restarts.", labels=labels)
    age = GaugeMetricFamily(
        "tdmr1_worker_heartbeat_age_seconds", "Since it last answered.", labels=labels
    )
    for run, facts in live:
        for worker in workers_of(facts):
            if worker.state in ("alive", "resting", "dead"):
                up.add_metric((run.id, worker.role, worker.name), worker.state != "dead")
            restarts.add_metric((run.id, worker.role, worker.name), worker.restarts)
            if worker.heard_at is not None:
                age.add_metric(
                    (run.id, worker.role, worker.name), max(0.0, time.time() - worker.heard_at)
                )
    yield from (up, restarts, age)


def _checkpoints(live: Live) -> Iterator[Metric]:
    written = GaugeMetricFamily(
        "tdmr1_checkpoint_timestamp_seconds", "When the newest one was written.", labels=["run"]
    )
    size = GaugeMetricFamily("tdmr1_checkpoint_bytes", "Its size.", labels=["run"])
    for run, _ in live:
        found = checkpoints_of(run.folder.checkpoints)
        if found:
            written.add_metric((run.id,), found[0].written_at)
            size.add_metric((run.id,), found[0].num_bytes)
    yield from (written, size)
