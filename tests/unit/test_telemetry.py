"""The metric stream: whole lines, missing never zero, seconds that start anew."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.telemetry import Telemetry, TensorBoardWriter, WandbWriter

pytestmark = pytest.mark.unit


class Remembered:
    """A writer that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float]]] = []

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep it."""
        self.steps.append((step, dict(metrics)))

    def close(self) -> None:
        """Nothing to do."""


def lines(path: Path) -> list[dict[str, float]]:
    """Every line of the stream."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path / "metrics.jsonl")
    telemetry.note({"surrogate/preference": 0.69})
    telemetry.write(1, policy_version=1, surrogate_version=2)
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert (line["step"], line["policy_version"], line["surrogate_version"]) == (1, 1, 2)
    assert line["surrogate/preference"] == 0.69
    assert line["time"] > 1e9
    telemetry.close()


def test_what_is_not_finite_is_null_and_writers_do_not_get_it(tmp_path: Path) -> None:
    remembered = Remembered()
    telemetry = Telemetry(tmp_path / "metrics.jsonl", [remembered])
    telemetry.note({"generator/grad_norm": float("nan"), "generator/kl": 1.0})
    telemetry.write(1, 1, 1)
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line["generator/grad_norm"] is None
    assert "generator/grad_norm" not in remembered.steps[0][1]
    assert remembered.steps[0][1]["generator/kl"] == 1.0


def test_sums_and_notes_belong_to_one_line(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path / "metrics.jsonl")
    telemetry.add("rollout/images", 16)
    telemetry.add("rollout/images", 16)
    with telemetry.phase("generator"):
        pass
    first = telemetry.write(1, 1, 0)
    second = telemetry.write(2, 2, 0)
    assert first["rollout/images"] == 32
    assert first["rollout/images_per_s"] == pytest.approx(32 / first["seconds/iteration"])
    assert 0 <= first["seconds/generator"] <= first["seconds/iteration"]
    assert "rollout/images" not in second
    assert "seconds/generator" not in second


def test_tensorboard_gets_the_numbers(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path / "metrics.jsonl", [TensorBoardWriter(tmp_path / "tb")])
    telemetry.note({"generator/kl": 0.5})
    telemetry.write(1, 1, 0)
    telemetry.close()
    (events,) = (tmp_path / "tb").iterdir()
    assert b"generator/kl" in events.read_bytes()


def test_wandb_takes_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    telemetry = Telemetry(tmp_path / "metrics.jsonl", [WandbWriter("run", tmp_path)])
    telemetry.write(1, 1, 0)
    telemetry.close()
