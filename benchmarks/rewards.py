"""What rewards cost: images a second of a worker, how full batches are, the wall time of a run.

    python -m benchmarks.rewards workers                # images/s of one worker, by kind and batch
    python -m benchmarks.rewards pool                   # batch fill and waits, by load and wait
    python -m benchmarks.rewards run configs/demo.yaml  # sync and async, latency 0, 1x, 4x

`run` trains the config with its first reward answering `latency` later for every batch, as a judge
behind a network does: 0, 1 and 4 times the seconds of a rollout call, which a first run measures.
Sync and async take turns, and so do the latencies, in every round; what latency costs is the
seconds an iteration over those of latency 0 in the same mode and round:

    hidden = 1 - (async(latency) - async(0)) / (sync(latency) - sync(0))

Where other work takes the cores, whole iterations drift by more than that. `waited` is the same
from what the runs measure of themselves, which other work disturbs least: the seconds that the
generator waited for groups (async), over the reward's own seconds, all of which a sync run waits
for where an iteration is one rollout call.
"""

import argparse
import asyncio
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.iteration import ON_POLICY, WARM
from services.config import RewardConfig, load_config
from services.demo import corpus as boards
from services.demo.prompts import train_prompts
from services.demo.words import corpus as signs
from services.reward.contract import Answer, PointwiseReward, RewardInput
from services.reward.load import load_reward
from services.reward.worker import RewardWorker
from services.runtime.batch_pool import BatchPool
from services.runtime.batches import BatchQueue
from services.runtime.handles import HostSpec, Recipe
from services.runtime.local import LocalRuntime
from services.runtime.staff import Staff
from services.runtime.waiting import Patience
from services.train import train
from tdm_core.types import ImageGroup, Prompt

LATENCIES = (1, 4)
"""Of the reward, in rollout calls; beside 0."""
MODES = {"sync": list(ON_POLICY), "async": []}
SECONDS = ("iteration", "wait", "reward")
"""`seconds/...` of the metrics, summed an iteration; none where it did not happen."""
SEEN = {"staleness": "replay/staleness_surrogate_mean", "fill": "reward/delayed/batch_fill"}
NUM_IMAGES, REPEATS = 64, 5
GROUP, BATCH = 16, 64
CALL_S, IMAGE_S = 0.02, 0.001
"""What the pool's stand-in for a judge takes for a call, and for each of its images."""


class Delayed:
    """Another pointwise reward, `latency_s` seconds later for every batch."""

    def __init__(self, latency_s: float, kind: str, options: dict[str, Any]) -> None:
        self._reward = load_reward(RewardConfig(name="delayed", kind=kind, options=options))
        self._latency_s = latency_s
        self.version, self.requires = self._reward.version, self._reward.requires

    def evaluate(self, batch: list[RewardInput]) -> Sequence[Answer]:
        """As the other does, in time."""
        time.sleep(self._latency_s)
        return cast(PointwiseReward, self._reward).evaluate(batch)


class Judge:
    """Takes CALL_S for a call and IMAGE_S for each of its images; a piece is a group."""

    def judge(self, *groups: int) -> tuple[Any, ...]:
        """Counts, then an answer for each group."""
        images = GROUP * len(groups)
        time.sleep(CALL_S + IMAGE_S * images)
        return {"images": images, "evaluations": 1}, *groups


def _groups(images: Any, prompts: Sequence[Prompt]) -> list[ImageGroup]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)[:, None, None]
    return [ImageGroup(i, prompts[i], 0, pixels[i]) for i in range(len(prompts))]


def workers() -> None:
    """Images a second of one worker: medians over repeats, one thread."""
    torch.set_num_threads(1)
    pairs = boards.build_corpus(NUM_IMAGES, 0, 0.0), signs.build_corpus(NUM_IMAGES, 0, 0.0)
    known = {each["prompt"]: each for each in train_prompts()}
    board = [Prompt(f"b:{i}", text, known[text]) for i, text in enumerate(pairs[0].captions)]
    sign = [Prompt(f"s:{i}", text) for i, text in enumerate(pairs[1].captions)]
    kinds = {
        "geneval": _groups(pairs[0].images, board),
        "jpeg_compressibility": _groups(pairs[0].images, board),
        "ocr": _groups(pairs[1].images, sign),
    }
    print("kind", "batch_size", "images/s", "slowest", "fastest", sep="\t")
    for kind, groups in kinds.items():
        for size in (1, 16, 64):
            worker = RewardWorker(RewardConfig(name="r", kind=kind, batch_size=size))
            worker.judge(groups)
            rates = [NUM_IMAGES / _seconds(worker, groups) for _ in range(REPEATS)]
            row = (statistics.median(rates), min(rates), max(rates))
            print(kind, size, *(f"{rate:.0f}" for rate in row), sep="\t")


def _seconds(worker: RewardWorker, groups: list[ImageGroup]) -> float:
    start = time.perf_counter()
    worker.judge(groups)
    return time.perf_counter() - start


def pool(seconds: float) -> None:
    """Groups come at random (Poisson) to one worker; how full its batches are, what groups wait."""
    full_s = CALL_S + IMAGE_S * BATCH
    print("load", "batch_wait_s", "batch fill", "wait p50", "wait p95", "images/s", sep="\t")
    for load in (0.3, 0.6, 0.9):
        for wait_s in (0.0, 0.1):
            costs = asyncio.run(_served(load * BATCH / full_s / GROUP, wait_s, seconds))
            names = ("batch_fill", "wait_p50_s", "wait_p95_s", "images_per_s")
            print(load, wait_s, *(f"{costs[name]:.3f}" for name in names), sep="\t")


async def _served(groups_per_s: float, wait_s: float, seconds: float) -> dict[str, float]:
    runtime, rng = LocalRuntime(Patience()), random.Random(0)
    handles = await runtime.start([HostSpec("judge", {"judge": Recipe(f"{__name__}:Judge")})])
    used = BatchPool(Staff(list(handles.values())), BatchQueue(BATCH, wait_s, 1000))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(used.serve())
        async with asyncio.TaskGroup() as judging:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                judging.create_task(used.judge(_told(), GROUP))
                await asyncio.sleep(rng.expovariate(groups_per_s))
        serving.cancel()
    await runtime.close()
    return used.costs.drain()


def _told() -> Any:
    reference: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    reference.set_result(0)
    return reference


def run(
    config: str,
    iterations: int,
    rounds: int,
    latencies: Sequence[int],
    call_s: float | None,
    overrides: list[str],
) -> None:
    """Seconds an iteration, sync and async, by the reward's latency; what async hides of it."""
    if call_s is None:
        first = _train(config, iterations, 0.0, [*overrides, *MODES["sync"]])
        call_s = _per_iteration(first, "seconds/rollout") / _calls(config, overrides)
    print(f"latency 1 is {call_s:.3f} s a batch")
    print("mode", "latency", *SECONDS, *SEEN, "updates", sep="\t")
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for latency in (0, *latencies):
            for mode, more in MODES.items():
                lines = _train(config, iterations, latency * call_s, [*overrides, *more])
                row = _row(lines)
                found.setdefault((mode, latency), []).append(row)
                cells = (f"{value:.3f}" for value in row.values())
                print(mode, latency, *cells, sep="\t", flush=True)
    _print_hidden(found, latencies)


def _train(config: str, iterations: int, latency_s: float, overrides: list[str]) -> list[dict]:
    """The metric lines of one run in this process, warm-up left out."""
    inner = load_config(config, overrides).rewards[0]
    options = {"latency_s": latency_s, "kind": inner.kind, "options": inner.options}
    reward = {"name": "delayed", "kind": "python:benchmarks.rewards:Delayed", "options": options}
    with tempfile.TemporaryDirectory() as folder:
        more = [
            f"rewards={json.dumps([reward])}",
            f"run.dir={folder}",
            f"run.iterations={iterations + WARM}",
            "run.max_seconds=null",
            "evaluation.num_images=0",
            "telemetry.images_every=0",
        ]
        train(load_config(config, [*overrides, *more]))
        (stream,) = Path(folder).glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in stream.read_text().splitlines()]
    return lines[WARM : WARM + iterations]


def _calls(config: str, overrides: list[str]) -> int:
    """Generate calls an iteration."""
    loaded = load_config(config, overrides)
    return -(-loaded.algorithm.num_groups // loaded.cluster.rollout_groups)


def _per_iteration(lines: list[dict], name: str) -> float:
    return statistics.median(line.get(name) or 0.0 for line in lines)


def _row(lines: list[dict]) -> dict[str, float]:
    """Medians an iteration, and the surrogate's updates; NaN for what was never seen."""
    row = {name: _per_iteration(lines, f"seconds/{name}") for name in SECONDS}
    for name, metric in SEEN.items():
        values = [line[metric] for line in lines if line.get(metric) is not None]
        row[name] = statistics.median(values) if values else math.nan
    grown = lines[-1]["surrogate_version"] - lines[0]["surrogate_version"]
    return row | {"updates": grown / (len(lines) - 1)}


def _print_hidden(
    found: dict[tuple[str, int], list[dict[str, float]]], latencies: Sequence[int]
) -> None:
    print("latency", "hidden", "round by round", "waited", "round by round", sep="\t")
    for latency in latencies:

        def added(mode: str, name: str, latency: int = latency) -> list[float]:
            each = zip(found[mode, latency], found[mode, 0], strict=True)
            return [slow[name] - quick[name] for slow, quick in each]

        shares = [
            (added("async", "iteration"), added("sync", "iteration")),
            (added("async", "wait"), added("sync", "reward")),
        ]
        row = []
        for late, early in shares:
            each = [1 - a / s for a, s in zip(late, early, strict=True)]
            row += [f"{statistics.median(each):.3f}", " ".join(f"{share:.2f}" for share in each)]
        print(latency, *row, sep="\t")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description="what rewards cost")
    parser.add_argument("what", choices=("workers", "pool", "run"))
    parser.add_argument("config", nargs="?", default="configs/demo.yaml")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latencies", type=int, nargs="+", default=LATENCIES)
    parser.add_argument("--call-s", type=float, help="latency 1, instead of a rollout call's time")
    parser.add_argument("--seconds", type=float, default=20, help="of every row of `pool`")
    arguments, overrides = parser.parse_known_args()
    if arguments.what == "workers":
        workers()
    elif arguments.what == "pool":
        pool(arguments.seconds)
    else:
        given = (arguments.config, arguments.iterations, arguments.rounds, arguments.latencies)
        run(*given, arguments.call_s, overrides)


if __name__ == "__main__":
    main()
