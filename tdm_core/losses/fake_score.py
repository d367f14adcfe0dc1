"""The fake score follows the generator's own distribution (algorithm.md 2.3).

    L_f = w |target - v_f(x_tau)|^2 + .02 |v_psi(x_tau) - v_f(x_tau)|^2
`clean_pred`: target (x_tau - x0hat)/tau, w = 1. Unbiased at the last slot only.
`conditional_velocity`: the exact u of the transport, w = clamp(1/b^2, 0, 10) b^2.

Deviations from the paper: 1. the teacher regulariser is the authors' code, not the paper.
"""

import torch
from torch import Tensor

from tdm_core.config import FakeScoreConfig
from tdm_core.denoiser import Denoiser, broadcast_rows
from tdm_core.losses.replay import replay_step
from tdm_core.microbatches import Pass
from tdm_core.noise_schedule import conditional_velocity, renoise, transport


def fake_score_target(
    x_n: Tensor, clean: Tensor, noise: Tensor, n: float, tau: Tensor, config: FakeScoreConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_tau, target, row weight): rows (N, C, H, W) twice, and (N,)."""
    x_tau = renoise(x_n, noise, n, tau)
    if config.target == "clean_pred":
        return x_tau, (x_tau - clean) / broadcast_rows(tau, x_tau), torch.ones_like(tau)
    _, b = transport(n, tau)
    weight = (1 / b**2).clamp(max=config.max_inverse_variance) * b**2
    return x_tau, conditional_velocity(x_n, noise, n, tau), weight


def fake_score_loss(
    p: Pass, generator: Denoiser, fake_score: Denoiser, teacher: Denoiser
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over the pass's rows, with gradient in `fake_score` alone."""
    config = p.config.fake_score
    n = p.sigmas[p.slot + 1]
    tau = p.draw_tau("kl_tau", p.slot, 0.0, shared=p.config.tau_sharing == "per_slot")
    noise = p.draw_noise("fake_noise", shared=False)
    with torch.no_grad():
        replayed = replay_step(p, generator)
        x_tau, target, weight = fake_score_target(
            replayed.x_n, replayed.clean, noise, n, tau, config
        )
        v_teacher = teacher(x_tau, tau, p.conditioning)
    v_fake = fake_score(x_tau, tau, p.conditioning)
    matching = weight * (target - v_fake).square().flatten(1).mean(1)
    distance = (v_teacher - v_fake).square().flatten(1).mean(1)
    rows = p.weight_N.to(matching)
    loss = (rows * (matching + config.teacher_regulariser * distance)).sum()
    return loss, {
        "fake_score/matching": (rows * matching).sum().detach(),
        "fake_score/teacher_distance": (rows * distance).sum().detach(),
    }
