"""One step of the stored trajectory taken again with the current generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tdm_core.denoiser import Denoiser, clean_from_velocity
from tdm_core.microbatches import Pass
from tdm_core.sampler import clean_predictions, second_order_coefficient, solver_step


@dataclass(frozen=True)
class ReplayedStep:
    """The generator's prediction and boundary at the pass's slot; rows (N, C, H, W)."""

    clean: Tensor
    """x0hat = x_s - s v(x_s)."""
    x_n: Tensor
    """x_{s_{j+1}}, by the solver of the rollout."""


def replay_step(p: Pass, generator: Denoiser) -> ReplayedStep:
    """Evaluate the generator on the stored, detached x_{s_j}; gradient flows if enabled."""
    j, sampler = p.slot, p.config.sampler
    latents = p.boundaries_NKCHW[:, j]
    sigma = torch.full_like(p.weight_N, p.sigmas[j]).to(latents)
    velocity = generator(latents, sigma, p.conditioning)
    before = None
    if second_order_coefficient(p.sigmas, j, sampler):
        before = clean_predictions(p.boundaries_NKCHW, p.sigmas, sampler)[:, j - 1]
    return ReplayedStep(
        clean=clean_from_velocity(latents, velocity, sigma),
        x_n=solver_step(latents, velocity, before, j, p.sigmas, sampler),
    )
