"""The surrogate reward, trained by group preference (algorithm.md 3).

    D_i = mean_el (u_i - v_phi)^2,   S_g = (beta/G) sum_i A_i (D_i - Dref_i)
    loss = mean_g softplus(S_g) / beta, whose gradient is that of mean_i sg[sigmoid(S_g)] A_i D_i
The second form is what is computed. Groups are weighted in the mean: one that people judged long
after it was made counts less. All samples of a group share tau and noise, without which S_g is the
noise of the draw. A row is frozen (its D detached, still counted in S_g) where the surrogate has
already moved far enough: rule (a) against its EMA, rule (b) against the teacher.

Deviations from the paper: 1. clips, regulariser and slot weight are the authors' code; 2. M of rule
(b) is reduced over ranks; 3. in `relative` scale both rules are in units of the teacher's mean
squared velocity, so that large latents do not freeze every row (noise keeps the unit near 1 or
above, however small the latents).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tdm_core.config import SurrogateConfig
from tdm_core.denoiser import Denoiser
from tdm_core.microbatches import Pass
from tdm_core.noise_schedule import conditional_velocity, renoise
from tdm_core.optimizer import AllReduce, identity
from tdm_core.types import RewardedBatch, rows_of

MAX_LOG_RATIO = 80.0
"""exp stays finite in float32."""
SeeRewards = Callable[[Tensor], object]
"""Given the rows' implicit rewards Dref_i - D_i (N,) of before the update, which nothing trains on;
they compare within a group, whose samples share tau and noise."""


@dataclass(frozen=True)
class Preference:
    """Rows of one pass as the preference sees them; all (N,)."""

    advantage: Tensor
    """A_i, zero where invalid."""
    group: Tensor
    """int64 group index in the microbatch."""
    group_size: Tensor
    """Valid members of the row's group, over all ranks; at least 1."""
    weight: Tensor
    """Mean over groups (weighted), then over valid members; zero where invalid."""


def group_sums(preference: Preference, difference: Tensor, num_groups: int, beta: float) -> Tensor:
    """This rank's part of S_g (num_groups,); `difference` is D - Dref (N,)."""
    rows = preference.advantage * difference / preference.group_size
    partial = torch.zeros(num_groups, dtype=rows.dtype, device=rows.device)
    return beta * partial.index_add(0, preference.group, rows)


def frozen_by_ratio(advantage: Tensor, d: Tensor, d_ema: Tensor, clip: float) -> Tensor:
    """Rule (a): rho = exp(Dbar - D) beyond 1 +- clip in the direction of the advantage; bool."""
    rho = (d_ema - d).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.where(advantage > 0, rho > 1 + clip, rho < 1 - clip)


def frozen_by_distance(
    advantage: Tensor, d: Tensor, d_ref: Tensor, distance: Tensor, threshold: float
) -> Tensor:
    """Rule (b): once M > threshold, rows that already moved the right way from the teacher."""
    moved = torch.where(advantage > 0, d < d_ref, d > d_ref)
    return moved & (distance > threshold)


def surrogate_loss(
    p: Pass,
    batch: RewardedBatch,
    surrogate: Denoiser,
    surrogate_ema: Denoiser,
    teacher: Denoiser,
    velocity_power: float,
    all_reduce: AllReduce = identity,
    see_rewards: SeeRewards | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum over the pass's rows, with gradient in `surrogate` alone.

    `velocity_power` is the running mean of the teacher's squared velocity (`relative` scale); 0, at
    the first step, stands for 1.
    """
    config, j = p.config.surrogate, p.surrogate_slot
    n = p.sigmas[j + 1]
    tau = p.draw_tau("surrogate_tau", j, config.tau_min, shared=True)
    noise = p.draw_noise("surrogate_noise", shared=True)
    x_n = p.boundaries_NKCHW[:, j + 1]
    x_tau, target = renoise(x_n, noise, n, tau), conditional_velocity(x_n, noise, n, tau)

    v = surrogate(x_tau, tau, p.conditioning)
    with torch.no_grad():
        v_teacher = teacher(x_tau, tau, p.conditioning)
        needs_ema = config.ratio_clip > 0 or config.reference == "ema"
        v_ema = surrogate_ema(x_tau, tau, p.conditioning) if needs_ema else v.detach()
    d, d_teacher, d_ema = (mean_square(target - w) for w in (v, v_teacher, v_ema))
    d_ref = d_ema if config.reference == "ema" else d_teacher
    distance_rows = mean_square(v - v_teacher)
    if see_rewards is not None:
        see_rewards((d_ref - d).detach())

    preference = preference_of(p, batch, j, like=d)
    weight = p.weight_N.to(d)
    s_g, distance = reduce_groups(
        preference, (d - d_ref).detach(), weight, distance_rows.detach(), p, all_reduce
    )
    unit = (velocity_power or 1.0) if config.threshold_scale == "relative" else 1.0
    frozen = frozen_rows(
        preference.advantage,
        d.detach() / unit,
        d_ema / unit,
        d_teacher / unit,
        distance / unit,
        config,
    )
    d_live = torch.where(frozen, d.detach(), d)
    pull = torch.sigmoid(s_g)[preference.group] * preference.advantage * d_live
    slot_weight = (j + 1) / p.config.sampler.num_steps if config.step_weight else 1.0
    loss = slot_weight * (
        (preference.weight * pull).sum() + config.regulariser * (weight * distance_rows).sum()
    )
    per_row = {
        "surrogate/preference": (softplus(s_g) / config.beta)[preference.group],
        "surrogate/group_sum": s_g[preference.group],
        "surrogate/distance": distance_rows.detach(),
        "surrogate/error": d.detach(),
        "surrogate/reference_error": d_ref,
        "surrogate/frozen": frozen.to(d),
        "surrogate/velocity_power": mean_square(v_teacher),
    }
    return loss, {name: (weight * value).sum() for name, value in per_row.items()}


def preference_of(p: Pass, batch: RewardedBatch, slot: int, like: Tensor) -> Preference:
    """This rank's rows of the preference at column `slot`, in `like`'s dtype and device."""
    everyone = rows_of(batch.fresh)
    valid = batch.valid_NK[:, slot]
    counts = torch.zeros(len(batch.fresh.group_ids), dtype=torch.float64)
    counts.index_add_(0, everyone, valid.to(counts))
    group_size = counts[everyone[p.rows_N]].clamp(min=1)
    listed = torch.tensor(p.group_sizes, dtype=torch.float64)[p.group_N]
    mine = valid[p.rows_N]
    weights = torch.tensor(batch.group_weights, dtype=torch.float64)
    # Exactly 1 in every group where all weigh alike.
    share = (weights * len(weights) / weights.sum())[everyone[p.rows_N]]
    return Preference(
        advantage=(batch.advantages_NK[p.rows_N, slot] * mine).to(like),
        group=p.group_N.to(like.device),
        group_size=group_size.to(like),
        weight=(p.weight_N * listed / group_size * mine * share).to(like),
    )


def reduce_groups(
    preference: Preference,
    difference: Tensor,
    weight: Tensor,
    distance_rows: Tensor,
    p: Pass,
    all_reduce: AllReduce,
) -> tuple[Tensor, Tensor]:
    """S_g of every group and M of the pass, over all ranks in one all-reduce."""
    sums = group_sums(preference, difference, len(p.group_ids), p.config.surrogate.beta)
    moved = (weight * distance_rows).sum() / p.share
    packed = all_reduce(torch.cat([sums, moved.reshape(1)]))
    return packed[:-1], packed[-1]


def frozen_rows(
    advantage: Tensor,
    d: Tensor,
    d_ema: Tensor,
    d_teacher: Tensor,
    distance: Tensor,
    config: SurrogateConfig,
) -> Tensor:
    """Rows (N,) bool that rule (a) or rule (b) freezes; a limit of 0 switches its rule off."""
    frozen = torch.zeros_like(advantage, dtype=torch.bool)
    if config.ratio_clip > 0:
        frozen = frozen | frozen_by_ratio(advantage, d, d_ema, config.ratio_clip)
    if config.gate_threshold > 0:
        frozen = frozen | frozen_by_distance(
            advantage, d, d_teacher, distance, config.gate_threshold
        )
    return frozen


def update_velocity_power(running: float, observed: float, retained: float = 0.95) -> float:
    """Running mean of the teacher's mean squared velocity; 0 stands for nothing seen yet."""
    return observed if running <= 0 else retained * running + (1 - retained) * observed


def mean_square(error: Tensor) -> Tensor:
    """mean over elements a row; (N,) in at least float32."""
    return error.to(torch.promote_types(error.dtype, torch.float32)).square().flatten(1).mean(1)
