"""Seconds an iteration, split by phase, and what Ray costs over the local runtime.

    python benchmarks/iteration.py configs/demo.yaml --iterations 20 --pairs 3

Runs the same on-policy training on both runtimes in turn (local, ray, local, ray, ...), each in a
process of its own, and prints medians over iterations and the ratio pair by pair: this holds where
single times drift. The first two iterations of a run warm caches and are left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM = 2
ON_POLICY = (
    "algorithm.replay.max_staleness_generator=0",
    "algorithm.replay.max_staleness_surrogate=0",
)


def measure(config: str, runtime: str, iterations: int, overrides: list[str]) -> list[dict]:
    """The metric lines of one run's iterations, warm-up left out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "services.cli",
            "train",
            config,
            f"cluster.runtime={runtime}",
            f"run.dir={folder}",
            f"run.iterations={iterations + WARM}",
            "evaluation.num_images=0",
            "telemetry.images_every=0",
            *overrides,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (stream,) = Path(folder).glob("*/metrics.jsonl")
        lines = [json.loads(line) for line in stream.read_text().splitlines()]
    return lines[WARM : WARM + iterations]


def medians(lines: list[dict]) -> dict[str, float]:
    """Median seconds of every phase."""
    names = sorted({name for line in lines for name in line if name.startswith("seconds/")})
    return {name: statistics.median(line.get(name) or 0.0 for line in lines) for name in names}


def main() -> None:
    """Print a table of phases and the ratio of whole iterations."""
    parser = argparse.ArgumentParser(description="phases, and Ray against local")
    parser.add_argument("config", nargs="?", default="configs/demo.yaml")
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--asynchronous", action="store_true", help="Ray alone, as configured")
    arguments, overrides = parser.parse_known_args()
    runtimes = ("ray",) if arguments.asynchronous else ("local", "ray")
    extra = overrides if arguments.asynchronous else [*ON_POLICY, *overrides]
    runs: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in runtimes}
    for _ in range(arguments.pairs):
        for runtime in runtimes:
            lines = measure(arguments.config, runtime, arguments.iterations, extra)
            runs[runtime].append(medians(lines))
    names = sorted({name for phases in runs.values() for each in phases for name in each})
    print("phase", *runtimes, sep="\t")
    for name in names:
        row = [statistics.median(each.get(name, 0.0) for each in runs[r]) for r in runtimes]
        print(name, *(f"{seconds:.3f}" for seconds in row), sep="\t")
    if len(runtimes) == 2:
        pairs = zip(runs["ray"], runs["local"], strict=True)
        ratios = [ray["seconds/iteration"] / local["seconds/iteration"] for ray, local in pairs]
        print("ray/local, pair by pair:", *(f"{r:.3f}" for r in ratios))
        print(f"median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
