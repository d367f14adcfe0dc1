"""Small batches, denoisers and ranks that the proofs of tdm_core share."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from tdm_core.batches import fresh_batch
from tdm_core.config import AlgorithmConfig, SamplerConfig
from tdm_core.denoiser import broadcast_rows
from tdm_core.microbatches import Pass, passes
from tdm_core.noise_schedule import boundaries
from tdm_core.optimizer import AllReduce
from tdm_core.types import FreshBatch, Prompt, RewardedBatch, RolloutGroup, Trajectory

SHAPE = (2, 1, 2)
"""Latent axes of the cases."""
UNCONDITIONAL = {"label": torch.zeros(1, 1, dtype=torch.float64)}

Result = TypeVar("Result")


class AffineDenoiser(nn.Module):
    """v = a x + b tanh(x) + c s + d label: four parameters, smooth, aware of its prompt."""

    def __init__(self, *values: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.tensor(values, dtype=dtype))

    def forward(self, latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
        a, b, c, d = self.coefficients
        label = conditioning["label"].to(latents)[:, 0]
        return a * latents + b * latents.tanh() + broadcast_rows(c * sigma + d * label, latents)


class RowDenoiser(nn.Module):
    """Velocity = one free tensor, so that its gradient is the loss's gradient in v."""

    def __init__(self, velocity_NCHW: Tensor) -> None:
        super().__init__()
        self.velocity = nn.Parameter(velocity_NCHW)

    def forward(self, latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
        return self.velocity + 0 * latents


class Recorder:
    """A denoiser that remembers what it was asked."""

    def __init__(self, denoiser) -> None:
        self.denoiser = denoiser
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, latents: Tensor, sigma: Tensor, conditioning) -> Tensor:
        self.calls.append((latents.detach().clone(), sigma.clone()))
        return self.denoiser(latents, sigma, conditioning)


def teacher() -> AffineDenoiser:
    """The cases' frozen teacher."""
    return AffineDenoiser(0.6, -0.3, 0.2, 0.5).requires_grad_(False)


def generator() -> AffineDenoiser:
    """A generator that differs from the teacher."""
    return AffineDenoiser(0.5, -0.1, 0.1, 0.4)


def fake_score() -> AffineDenoiser:
    """A fake score that differs from the teacher."""
    return AffineDenoiser(0.4, 0.2, -0.1, 0.3)


def surrogate() -> AffineDenoiser:
    """A surrogate that differs from the teacher."""
    return AffineDenoiser(0.7, -0.2, 0.3, 0.6)


def surrogate_ema() -> AffineDenoiser:
    """The surrogate's average, a little behind it."""
    return AffineDenoiser(0.68, -0.22, 0.28, 0.59).requires_grad_(False)


def rollout_group(
    group_id: int,
    size: int = 4,
    version: int = 0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    sampler: SamplerConfig | None = None,
) -> RolloutGroup:
    """A group whose boundaries are noise: what the losses need is a tensor, not a path."""
    sigmas = boundaries(sampler or SamplerConfig())
    rng = torch.Generator().manual_seed(1000 * seed + group_id)
    path = torch.randn((size, len(sigmas), *SHAPE), generator=rng, dtype=torch.float64)
    return RolloutGroup(
        group_id=group_id,
        prompt=Prompt(f"case:{group_id}", f"prompt {group_id}"),
        policy_version=version,
        trajectory=Trajectory(path.to(dtype), sigmas),
        conditioning={"label": torch.full((1, 1), 0.5 * (1 + group_id % 3), dtype=torch.float64)},
    )


def fresh(sizes: Sequence[int] = (4, 4), **keywords) -> FreshBatch:
    """Groups 0, 1, ... of the given sizes."""
    return fresh_batch([rollout_group(i, size, **keywords) for i, size in enumerate(sizes)])


def rewarded(
    batch: FreshBatch,
    advantages_NK: Tensor | None = None,
    valid_NK: Tensor | None = None,
    weights: Sequence[float] | None = None,
) -> RewardedBatch:
    """The batch with advantages, by default random ones of mean zero in each group and column."""
    rows, steps = batch.boundaries_NKCHW.shape[0], len(batch.sigmas) - 1
    if advantages_NK is None:
        rng = torch.Generator().manual_seed(7)
        drawn = torch.randn((rows, steps), generator=rng, dtype=torch.float64)
        parts = drawn.split(list(batch.group_sizes))
        advantages_NK = torch.cat([part - part.mean(0) for part in parts])
    if valid_NK is None:
        valid_NK = torch.ones((rows, steps), dtype=torch.bool)
    return RewardedBatch(
        batch,
        advantages_NK * valid_NK,
        valid_NK,
        tuple(weights or (1.0,) * len(batch.group_ids)),
        {},
    )


def algorithm(**changes) -> AlgorithmConfig:
    """Two groups of four, one slot an update; sections as keywords of changed fields."""
    config = AlgorithmConfig(num_groups=2, group_size=4, slots_per_update=1)
    for name, value in changes.items():
        section = getattr(config, name)
        new = replace(section, **value) if isinstance(value, dict) else value
        config = replace(config, **{name: new})
    return config


PLAIN_SURROGATE = {
    "ratio_clip": 0.0,
    "gate_threshold": 0.0,
    "regulariser": 0.0,
    "step_weight": False,
}
"""The bare preference: no clip, no gate, no regulariser, no slot weight."""


def one_pass(
    batch: FreshBatch,
    config: AlgorithmConfig,
    slot: int = 1,
    surrogate_slot: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Pass:
    """The first pass of update 0, moved to the given slots."""
    p = next(passes(batch, config, seed=0, step=0, rank=rank, world_size=world_size))
    return replace(p, slot=slot, surrogate_slot=slot if surrogate_slot is None else surrogate_slot)


def run_ranks(world_size: int, body: Callable[[int, AllReduce], Result]) -> list[Result]:
    """`body(rank, all_reduce)` on every rank at once, a thread each; sums are in rank order."""
    barrier = threading.Barrier(world_size, timeout=240)
    parts: list[Tensor] = [torch.empty(0)] * world_size

    def on_rank(rank: int) -> Result:
        def all_reduce(tensor: Tensor) -> Tensor:
            parts[rank] = tensor
            barrier.wait()
            total = torch.stack(parts).sum(0)
            barrier.wait()
            return total

        try:
            return body(rank, all_reduce)
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(on_rank, range(world_size)))


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    """d loss / d parameters, flat."""
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found])


def finite_difference(function: Callable[[], Tensor], module: nn.Module, h=1e-6) -> Tensor:
    """Central differences of `function` in every parameter of the module."""
    slopes = []
    with torch.no_grad():
        for parameter in module.parameters():
            flat = parameter.view(-1)
            for i in range(flat.numel()):
                kept = flat[i].item()
                flat[i] = kept + h
                above = function()
                flat[i] = kept - h
                below = function()
                flat[i] = kept
                slopes.append((above - below) / (2 * h))
    return torch.stack(slopes)


def has_no_gradient(*modules: nn.Module) -> bool:
    """Whether no parameter of any module has received one."""
    return all(p.grad is None for module in modules for p in module.parameters())


def ks_distance(first: Tensor, second: Tensor) -> float:
    """Two-sample Kolmogorov-Smirnov distance of flat samples."""
    both = torch.cat([first, second]).sort().values
    shares = [
        torch.searchsorted(sample.sort().values, both, right=True) / len(sample)
        for sample in (first, second)
    ]
    return float((shares[0] - shares[1]).abs().max())
