"""The generator climbs the surrogate and stays near the teacher (algorithm.md 4).

Directions in x0 space, all constants:
    d_kl  = x0_psi(x_tau) - x0_f(x_tau)                         reverse KL
    d_cfg = (g-1) (x0_psi - x0_psi^uncond)(x_tau)               guidance, as a reward
    d_rl  = x0_phi^{cfg}(x_tau') - x0_psi(x_tau')               the surrogate reward
Loss per row, ell(d, w) = mean_el (sg(x0hat + d) - x0hat)^2 / w:
    j < truncation:  om ell(d_cfg, wf) + (1-om) ell(d_rl, wd) + ell(d_kl, wf)
    otherwise:       om (ell(d_cfg, wf) + ell(d_kl, wf))
so descent moves x0hat along the directions. Gradient flows through x0hat alone.

Deviations from the paper: 1. the guidance term and both normalisers are the authors' code; 2. the
transcribed Eq. 11 has one sign for both terms, which would climb the KL: here the reward is climbed
and the KL descended; 3. x0hat, not x_n, carries the gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tdm_core.config import GeneratorConfig
from tdm_core.denoiser import (
    Denoiser,
    broadcast_rows,
    clean_from_velocity,
    conditional_and_unconditional,
    guide,
    guided_velocity,
)
from tdm_core.losses.replay import replay_step
from tdm_core.microbatches import Pass
from tdm_core.noise_schedule import renoise
from tdm_core.types import Conditioning


@dataclass(frozen=True)
class Directions:
    """Where x0hat should move, and the row normalisers; rows (N, C, H, W) and (N,)."""

    kl: Tensor
    guidance: Tensor
    teacher_normaliser: Tensor


@torch.no_grad()
def teacher_directions(
    x_tau: Tensor,
    tau: Tensor,
    clean: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    teacher: Denoiser,
    fake_score: Denoiser,
    config: GeneratorConfig,
) -> Directions:
    """d_kl, d_cfg and wf at the renoised state."""
    with_prompt, without = conditional_and_unconditional(
        teacher, x_tau, tau, conditioning, unconditional
    )
    teacher_clean = clean_from_velocity(x_tau, with_prompt, tau)
    teacher_empty = clean_from_velocity(x_tau, without, tau)
    fake_clean = clean_from_velocity(x_tau, fake_score(x_tau, tau, conditioning), tau)
    guided = guide(teacher_clean, teacher_empty, config.teacher_guidance)
    return Directions(
        kl=teacher_clean - fake_clean,
        guidance=(config.teacher_guidance - 1) * (teacher_clean - teacher_empty),
        teacher_normaliser=row_normaliser(clean, guided, config),
    )


@torch.no_grad()
def reward_direction(
    x_tau: Tensor,
    tau: Tensor,
    clean: Tensor,
    conditioning: Conditioning,
    unconditional: Conditioning,
    teacher: Denoiser,
    surrogate: Denoiser,
    config: GeneratorConfig,
) -> tuple[Tensor, Tensor]:
    """d_rl (N, C, H, W) and wd (N,) at its own renoised state."""
    scale = config.reward_guidance
    rows = (x_tau, tau, conditioning, unconditional)
    surrogate_clean = clean_from_velocity(x_tau, guided_velocity(surrogate, *rows, scale), tau)
    base = guided_velocity(teacher, *rows, scale if config.pure_reward_direction else 1.0)
    direction = surrogate_clean - clean_from_velocity(x_tau, base, tau)
    return direction, row_normaliser(clean, surrogate_clean, config)


def row_normaliser(clean: Tensor, target: Tensor, config: GeneratorConfig) -> Tensor:
    """mean |x0hat - target| a row, floored; (N,)."""
    distance = (clean - target).abs().flatten(1).mean(1)
    return distance.clamp(min=config.min_normaliser)


def pull(clean: Tensor, direction: Tensor, normaliser: Tensor, pseudo_huber: float) -> Tensor:
    """ell(d, w) a row: squared, or pseudo-Huber sqrt(d^2 + c^2) - c where c > 0; (N,)."""
    gap = (clean + direction).detach() - clean
    if pseudo_huber > 0:
        penalty = (gap.square() + pseudo_huber**2).sqrt() - pseudo_huber
    else:
        penalty = gap.square()
    return (penalty / broadcast_rows(normaliser, penalty)).flatten(1).mean(1)


def generator_loss(
    p: Pass,
    generator: Denoiser,
    fake_score: Denoiser,
    surrogate: Denoiser,
    teacher: Denoiser,
    unconditional: Conditioning,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over the pass's rows, with gradient in `generator` alone."""
    config, n = p.config.generator, p.sigmas[p.slot + 1]
    replayed = replay_step(p, generator)
    clean, x_n = replayed.clean, replayed.x_n.detach()

    tau = p.draw_tau("kl_tau", p.slot, 0.0, shared=p.config.tau_sharing == "per_slot")
    x_tau = renoise(x_n, p.draw_noise("kl_noise", shared=False), n, tau)
    toward = teacher_directions(
        x_tau, tau, clean.detach(), p.conditioning, unconditional, teacher, fake_score, config
    )
    # The Huber penalty is not quadratic, so its guidance term carries the factor outside as well.
    huber_factor = config.teacher_guidance - 1 if config.pseudo_huber > 0 else 1.0
    wf = toward.teacher_normaliser
    kl = pull(clean, toward.kl, wf, config.pseudo_huber)
    guidance = huber_factor * pull(clean, toward.guidance, wf, config.pseudo_huber)
    om = config.distillation_weight
    terms = {"kl": kl, "guidance": guidance}
    if p.slot >= p.config.truncation:
        per_row = om * (guidance + kl)
    else:
        per_row = om * guidance + kl
        if config.reward_scale > 0:
            tau_r = p.draw_tau("reward_tau", p.slot, config.tau_min, shared=True)
            x_tau_r = renoise(x_n, p.draw_noise("reward_noise", shared=True), n, tau_r)
            d_rl, wd = reward_direction(
                x_tau_r,
                tau_r,
                clean.detach(),
                p.conditioning,
                unconditional,
                teacher,
                surrogate,
                config,
            )
            reward = pull(clean, d_rl, wd, config.pseudo_huber)
            per_row = per_row + (1 - om) * config.reward_scale * reward
            terms["reward"] = reward
    rows = p.weight_N.to(per_row)
    metrics = {f"generator/{name}": (rows * value).sum().detach() for name, value in terms.items()}
    return (rows * per_row).sum(), metrics
