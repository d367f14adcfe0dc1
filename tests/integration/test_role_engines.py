"""Engines on small quadratics, one process: what DeepSpeed does is what plain torch does."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from services.generator.engine import RoleEngine, make_engine
from services.ranks import Ranks
from tdm_core.config import AlgorithmConfig, GeneratorConfig

pytestmark = pytest.mark.integration

ENGINES = [("torch", 0), ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2)]
ROLE = GeneratorConfig(lr=1e-2)


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def engine_over(module: nn.Module, kind: Any, stage: int = 0, clip: float = 0.5) -> RoleEngine:
    algorithm = AlgorithmConfig(max_grad_norm=clip)
    return make_engine(kind, list(module.parameters()), ROLE, algorithm, Ranks(), stage)


def train(engine: RoleEngine, module: nn.Module, steps: range, scale: float = 1.0) -> list[float]:
    """Two backward calls a step, on inputs keyed by the step."""
    norms = []
    for step in steps:
        for micro in range(2):
            inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(10 * step + micro))
            engine.backward(scale * module(inputs).square().mean())
        norms.append(engine.step())
    return norms


def assert_close(first: nn.Module, second: nn.Module) -> None:
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("kind", "stage"), ENGINES[1:])
def test_deepspeed_steps_like_the_plain_engine(kind: str, stage: int) -> None:
    module, plain = network(), network()
    ours = train(engine_over(module, kind, stage), module, range(5))
    theirs = train(engine_over(plain, "torch"), plain, range(5))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert_close(module, plain)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_a_state_goes_on_in_any_other_engine(kind: str, stage: int) -> None:
    module = network()
    engine = engine_over(module, kind, stage)
    train(engine, module, range(3))
    state = engine.state()
    others = []
    for other_kind, other_stage in ENGINES:
        other = network(seed=1)
        other.load_state_dict(module.state_dict())
        other_engine = engine_over(other, other_kind, other_stage)
        other_engine.load_state(state)
        assert other_engine.state().keys() == state.keys()
        train(other_engine, other, range(3, 6))
        others.append(other)
    train(engine, module, range(3, 6))
    for other in others:
        assert_close(other, module)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_a_learning_rate_that_is_set_holds_from_the_next_step_on(kind: str, stage: int) -> None:
    module, plain = network(), network()
    engine = engine_over(module, kind, stage)
    train(engine, module, range(2))
    engine.set_lr(1e-4)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    train(engine, module, range(2, 3))
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert 0 < float((parameter.detach() - old).abs().max()) < 2e-4
    other = engine_over(plain, "torch")
    train(other, plain, range(2))
    other.set_lr(1e-4)
    train(other, plain, range(2, 3))
    assert_close(module, plain)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_a_state_from_before_the_first_step_starts_afresh(kind: str, stage: int) -> None:
    module, plain = network(), network()
    engine = engine_over(module, kind, stage)
    engine.load_state(engine_over(network(), kind, stage).state())
    train(engine, module, range(2))
    train(engine_over(plain, "torch"), plain, range(2))
    assert_close(module, plain)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_a_gradient_that_is_not_finite_is_skipped_and_forgotten(kind: str, stage: int) -> None:
    module, plain = network(), network()
    engine = engine_over(module, kind, stage)
    assert not torch.isfinite(torch.tensor(train(engine, module, range(1), scale=float("nan"))))
    assert_close(module, plain)
    train(engine, module, range(2))
    train(engine_over(plain, "torch"), plain, range(2))
    assert_close(module, plain)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_each_role_is_clipped_by_its_own_norm(kind: str, stage: int) -> None:
    """A neighbour with a gradient a million times larger changes nothing."""
    updated = []
    for neighbour_scale in (1.0, 1e6):
        module, neighbour = network(0), network(1)
        engines = [engine_over(m, kind, stage) for m in (module, neighbour)]
        for step in range(3):
            train(engines[1], neighbour, range(step, step + 1), neighbour_scale)
            train(engines[0], module, range(step, step + 1))
        updated.append(module)
    for ours, theirs in zip(updated[0].parameters(), updated[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("kind", "stage"), ENGINES)
def test_a_loss_without_gradient_steps_on_zero(kind: str, stage: int) -> None:
    module = network()
    engine = engine_over(module, kind, stage)
    engine.backward(torch.zeros(()) if kind == "deepspeed" else 0 * module(torch.zeros(1, 5)).sum())
    assert engine.step() == 0.0


def test_deepspeed_refuses_float64_and_names_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"use cluster\.engine=torch"):
        engine_over(network(dtype=torch.float64), "deepspeed")


def test_no_compiler_is_needed(tmp_path: Path) -> None:
    """Nothing on PATH, nothing built before: the engine still makes its steps."""
    program = (
        "import tests.integration.test_role_engines as t\n"
        "m = t.network()\n"
        "t.train(t.engine_over(m, 'deepspeed', 2), m, range(2))\n"
    )
    environment = {
        "PATH": str(tmp_path),
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "built"),
        "PYTHONPATH": str(Path.cwd()),
        "OMP_NUM_THREADS": "1",
    }
    assert shutil.which("c++", path=environment["PATH"]) is None
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "built").exists()
