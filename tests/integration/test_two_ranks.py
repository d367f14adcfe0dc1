"""Two processes train what one process trains: parameters, metrics, skips and state."""

import json
import multiprocessing
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.ranks import join
from tests.learner_cases import Learners, toy_batch, toy_config

pytestmark = pytest.mark.integration

NUM_STEPS = 5
CASES: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch"},
    "zero0": {"engine": "deepspeed", "zero_stage": 0},
    "zero1": {"engine": "deepspeed", "zero_stage": 1},
    "zero2": {"engine": "deepspeed", "zero_stage": 2},
    "float64": {"engine": "torch", "dtype": "float64"},
}
RESUMED = ("torch", "zero0", "zero1", "zero2")


def train(case: str, rank: int, world_size: int, rendezvous: str, folder: Path) -> None:
    """Five iterations of one case; rank 0 writes tensors and metrics."""
    ranks = {"generator_ranks": world_size, "surrogate_ranks": world_size}
    config = toy_config(**CASES[case], **ranks)
    learners = Learners.make(config, rank, world_size, rendezvous)
    curve = [learners.iterate(toy_batch(config, i)) | _implicit(learners) for i in range(NUM_STEPS)]
    learners.generator.check_ranks_agree()
    learners.surrogate.check_ranks_agree()
    tensors = learners.tensors()
    if case in RESUMED:
        _check_resume(learners, Learners.make(config, rank, world_size, rendezvous))
    _check_lost_step(learners, toy_batch(config, NUM_STEPS))
    if rank == 0:
        save_file(tensors, folder / f"{case}-{world_size}.safetensors")
        (folder / f"{case}-{world_size}.json").write_text(json.dumps(curve))


def _implicit(learners: Learners) -> dict[str, float]:
    return {
        f"implicit/{group_id}/{sample}": reward
        for group_id, rewards in learners.surrogate.implicit_rewards().items()
        for sample, reward in enumerate(rewards)
    }


def _check_resume(learners: Learners, fresh: Learners) -> None:
    """A new pair with the old pair's state goes on bit for bit."""
    fresh.generator.load_state_dict(learners.generator.state_dict())
    fresh.surrogate.load_state_dict(learners.surrogate.state_dict())
    batch = toy_batch(learners.generator.config, NUM_STEPS)
    assert learners.iterate(batch) == fresh.iterate(batch)
    _assert_equal(learners.tensors(), fresh.tensors())


def _check_lost_step(learners: Learners, batch: Any) -> None:
    """A NaN in a row of the last rank keeps every rank from stepping any role."""
    world_size = learners.generator.ranks.world_size
    batch.fresh.boundaries_NKCHW[world_size - 1] = torch.nan
    before = learners.tensors()
    metrics = learners.iterate(batch)
    for role in ("generator", "fake_score", "surrogate"):
        assert metrics[f"{role}/step_lost"] == 1.0
        _assert_equal(_of_role(role, before), _of_role(role, learners.tensors()))


def _check_disagreement(rank: int, world_size: int, rendezvous: str) -> None:
    ranks = join(rank, world_size, rendezvous, torch.device("cpu"))
    ranks.check_agreement("equal", [torch.ones(3)])
    with pytest.raises(RuntimeError, match="hold different parameters"):
        ranks.check_agreement("unequal", [torch.full((3,), float(rank))])
    with pytest.raises(ValueError, match="already rank"):
        join(rank, world_size + 1, rendezvous, torch.device("cpu"))
    # A rank whose last act finds the other gone is aborted by its threads.
    torch.distributed.barrier()
    ranks.leave()


def _of_role(role: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(f"{role}/")}


def _assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def run_rank(rank: int, world_size: int, rendezvous: str, folder: Path) -> None:
    """All cases on one rank of two; its traceback goes where the test finds it."""
    torch.set_num_threads(1)
    try:
        for case in CASES:
            train(case, rank, world_size, rendezvous, folder)
        _check_disagreement(rank, world_size, rendezvous)
    except BaseException:
        (folder / f"rank-{rank}.txt").write_text(traceback.format_exc())
        raise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every case, by two spawned ranks and by this process alone."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        rendezvous = f"127.0.0.1:{server.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")
    children = [
        spawn.Process(target=run_rank, args=(rank, 2, rendezvous, folder)) for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=240)
        child.kill()
    faults = "\n".join(path.read_text() for path in sorted(folder.glob("rank-*.txt")))
    assert [child.exitcode for child in children] == [0, 0], faults
    for case in CASES:
        train(case, 0, 1, "", folder)
    return folder


def relative_gap(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest over the tensors of |a - b| / |b|, in the Euclidean norm."""
    assert first.keys() == second.keys()
    return max(float((first[n] - second[n]).norm() / second[n].norm()) for n in second)


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("role", ["generator", "fake_score", "surrogate", "generator_ema"])
def test_two_ranks_learn_the_parameters_of_one(folder: Path, case: str, role: str) -> None:
    two, one = (load_file(folder / f"{case}-{n}.safetensors") for n in (2, 1))
    gap = relative_gap(_of_role(role, two), _of_role(role, one))
    assert gap < (1e-12 if case == "float64" else 1e-5)


@pytest.mark.parametrize("case", list(CASES))
def test_two_ranks_report_the_metrics_of_one(folder: Path, case: str) -> None:
    two, one = (json.loads((folder / f"{case}-{n}.json").read_text()) for n in (2, 1))
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("case", ["zero0", "zero1", "zero2"])
def test_deepspeed_learns_what_the_plain_engine_learns(folder: Path, case: str) -> None:
    deepspeed, plain = (load_file(folder / f"{name}-1.safetensors") for name in (case, "torch"))
    for role in ("generator", "fake_score", "surrogate"):
        gap = relative_gap(_of_role(role, deepspeed), _of_role(role, plain))
        assert gap < 1e-6
