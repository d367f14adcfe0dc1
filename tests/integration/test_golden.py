"""One curve, three programs: the readable twin, the local runtime and a real Ray cluster."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from examples.one_file import GOLDEN, TOY, train
from services.config import load_config
from services.train import train as train_cluster
from tests.golden.write import ITERATIONS

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[2] / "configs" / "toy.yaml"


@cache
def twin() -> list[list[float]]:
    torch.set_num_threads(1)
    return [[metrics[name] for name in GOLDEN] for metrics in train(TOY, ITERATIONS)]


def test_the_shipped_toy_config_is_the_twin_s() -> None:
    config = load_config(CONFIG)
    assert config.algorithm == TOY
    assert (config.run.iterations, config.run.seed) == (ITERATIONS, 0)


@pytest.mark.parametrize("runtime", ["local", "ray"])
def test_the_runtime_gives_the_twin_s_curve_bit_for_bit(runtime: str, tmp_path: Path) -> None:
    config = load_config(CONFIG, [f"cluster.runtime={runtime}", f"run.dir={tmp_path}"])
    train_cluster(config)
    (stream,) = tmp_path.glob("*/metrics.jsonl")
    lines = [json.loads(line) for line in stream.read_text().splitlines()]
    assert [[line[name] for name in GOLDEN] for line in lines if GOLDEN[-1] in line] == twin()
