"""K-step deterministic sampling, and the replay of one of its steps (algorithm.md 1).

Both solvers share one step,
    x_{k+1} = x_k - (s_k - s_{k+1}) v_k + C_k (x0hat_k - x0hat_{k-1}),
where C_k = 0 for Euler, and for DPM-Solver++ (2M, midpoint, first order at both ends) is given by
`second_order_coefficient`. Training replays a step with the same formula, so the replayed boundary
is the sampled one.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from tdm_core.config import SamplerConfig
from tdm_core.denoiser import (
    Denoiser,
    broadcast_rows,
    clean_from_velocity,
    expand_rows,
    guided_velocity,
)
from tdm_core.noise_schedule import boundaries, shift_sigma
from tdm_core.seeding import normal, rng_for
from tdm_core.types import Conditioning, Trajectory


def second_order_coefficient(sigmas: tuple[float, ...], k: int, config: SamplerConfig) -> float:
    """C_k = (1 - n/s) / (2 r), r = h_{k-1}/h_k in log signal-to-noise; 0 where first order."""
    first_or_last = k in (0, len(sigmas) - 2)
    if config.solver == "euler" or first_or_last or sigmas[k - 1] == 1.0:
        return 0.0
    lam = [math.log((1 - s) / s) for s in sigmas[k - 1 : k + 2]]
    ratio = (lam[1] - lam[0]) / (lam[2] - lam[1])
    return 0.5 * (1 - sigmas[k + 1] / sigmas[k]) / ratio


def solver_step(
    latents: Tensor,
    velocity: Tensor,
    previous_clean: Tensor | None,
    k: int,
    sigmas: tuple[float, ...],
    config: SamplerConfig,
) -> Tensor:
    """x_{s_{k+1}} from x_{s_k}; all (N, C, H, W). `previous_clean` is x0hat of step k-1."""
    stepped = latents - (sigmas[k] - sigmas[k + 1]) * velocity
    coefficient = second_order_coefficient(sigmas, k, config)
    if coefficient == 0.0:
        return stepped
    assert previous_clean is not None, f"slot {k} of dpmpp_2m needs the prediction before it"
    return stepped + coefficient * (latents - sigmas[k] * velocity - previous_clean)


def initial_noise(
    seed: int, group_id: int, group_size: int, latent_shape: tuple[int, int, int], like: Tensor
) -> Tensor:
    """The group's starting noise x_1 (G, C, H, W), keyed by (seed, group_id) alone."""
    return normal((group_size, *latent_shape), rng_for(seed, "rollout", group_id), like)


@torch.no_grad()
def sample(
    denoiser: Denoiser, noise_GCHW: Tensor, conditioning: Conditioning, config: SamplerConfig
) -> Trajectory:
    """Run the few-step model without guidance; conditioning has G rows or one shared row."""
    sigmas = boundaries(config)
    rows = noise_GCHW.shape[0]
    conditioning = {name: expand_rows(value, rows) for name, value in conditioning.items()}
    latents, clean = noise_GCHW, None
    path = [latents]
    for k in range(config.num_steps):
        sigma = torch.full((rows,), sigmas[k], dtype=latents.dtype, device=latents.device)
        velocity = denoiser(latents, sigma, conditioning)
        stepped = solver_step(latents, velocity, clean, k, sigmas, config)
        clean = clean_from_velocity(latents, velocity, sigma)
        latents = stepped
        path.append(latents)
    return Trajectory(boundaries_GKCHW=torch.stack(path, dim=1), sigmas=sigmas)


def clean_predictions(
    boundaries_NKCHW: Tensor, sigmas: tuple[float, ...], config: SamplerConfig
) -> Tensor:
    """x0hat of every step (N, K, C, H, W), solved from the stored boundaries of the path.

    x_{k+1} = (n/s) x_k + (1 - n/s) x0hat_k + C_k (x0hat_k - x0hat_{k-1}) is linear in x0hat_k.
    """
    predictions: list[Tensor] = []
    for k in range(len(sigmas) - 1):
        keep = sigmas[k + 1] / sigmas[k]
        coefficient = second_order_coefficient(sigmas, k, config)
        rest = boundaries_NKCHW[:, k + 1] - keep * boundaries_NKCHW[:, k]
        if coefficient:
            rest = rest + coefficient * predictions[-1]
        predictions.append(rest / (1 - keep + coefficient))
    return torch.stack(predictions, dim=1)


@torch.no_grad()
def sample_teacher(
    teacher: Denoiser,
    noise: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    num_steps: int,
    shift: float,
    guidance: float,
) -> Tensor:
    """Many-step guided Euler sampling of the teacher: noise (N, C, H, W) to x0 (N, C, H, W)."""
    rows = noise.shape[0]
    levels = [shift_sigma(1 - k / num_steps, shift) for k in range(num_steps)] + [0.0]
    latents = noise
    for s, n in pairwise(levels):
        sigma = torch.full((rows,), s, dtype=latents.dtype, device=latents.device)
        velocity = guided_velocity(teacher, latents, sigma, conditioning, unconditional, guidance)
        latents = latents - broadcast_rows(sigma - n, latents) * velocity
    return latents
