"""Groups as a batch: rows concatenated in group order, and advantages computed at the draw."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tdm_core.advantages import AdvantageNormaliser, GroupAdvantages, GroupRewards
from tdm_core.config import AdvantageConfig
from tdm_core.denoiser import expand_rows
from tdm_core.types import FreshBatch, RewardedBatch, RewardedGroup, RolloutGroup

TENTHS = (0.1, 0.9)
"""Percentiles of a batch's rewards that are told."""


def fresh_batch(groups: Sequence[RolloutGroup]) -> FreshBatch:
    """Concatenate groups of one sampler grid; N is the sum of their sizes."""
    sigmas = groups[0].trajectory.sigmas
    assert all(group.trajectory.sigmas == sigmas for group in groups), "one grid a run"
    return FreshBatch(
        boundaries_NKCHW=torch.cat([g.trajectory.boundaries_GKCHW for g in groups]),
        sigmas=sigmas,
        conditioning={
            name: torch.cat([expand_rows(g.conditioning[name], g.group_size) for g in groups])
            for name in groups[0].conditioning
        },
        group_ids=tuple(group.group_id for group in groups),
        group_sizes=tuple(group.group_size for group in groups),
        policy_versions=tuple(group.policy_version for group in groups),
    )


def rewarded_batch(
    groups: Sequence[RewardedGroup], normaliser: AdvantageNormaliser, names: Sequence[str]
) -> RewardedBatch:
    """The surrogate's batch; `names` label the R rewards in the statistics."""
    rewards = [GroupRewards(group.rewards_RGK, group.valid_RGK) for group in groups]
    advantages = normaliser(rewards)
    tags = [group.group.prompt.tag for group in groups]
    return RewardedBatch(
        fresh=fresh_batch([group.group for group in groups]),
        advantages_NK=torch.cat([a.advantages_GK for a in advantages]),
        valid_NK=torch.cat([a.valid_GK for a in advantages]),
        group_weights=tuple(group.weight for group in groups),
        statistics=reward_statistics(rewards, advantages, names, normaliser.config)
        | rewards_by_tag(rewards, tags, names, normaliser.config),
    )


def reward_statistics(
    rewards: Sequence[GroupRewards],
    advantages: Sequence[GroupAdvantages],
    names: Sequence[str],
    config: AdvantageConfig,
) -> dict[str, float]:
    """What people watch: means over valid entries only, shares over all groups or rows."""
    valid = torch.cat([a.valid_GK for a in advantages])
    values = torch.cat([a.advantages_GK for a in advantages])
    clipped = torch.cat([a.clipped_GK for a in advantages])
    # A group without contrast in the last column teaches the surrogate nothing.
    silent = [not bool(a.advantages_GK[:, -1].any()) for a in advantages]
    statistics = {
        "advantage/zero_signal": sum(silent) / len(silent),
        "advantage/abs_mean": _mean(values.abs(), valid),
        "advantage/clipped": _mean(clipped.double(), valid),
        "advantage/valid": float(valid.double().mean()),
    }
    if valid.any():
        statistics["advantage/std"] = float(values[valid].std(correction=0))
    for index, name in enumerate(names):
        column = torch.cat([group.rewards_RGK[index] for group in rewards])
        mask = torch.cat([group.valid_RGK[index] for group in rewards])
        total = final_rewards(column, config)
        final = total[~total.isnan()]
        if final.numel():
            statistics[f"reward/{name}/mean"] = float(final.mean())
            statistics[f"reward/{name}/std"] = float(final.std(correction=0))
            low, high = final.double().quantile(final.new_tensor(TENTHS).double())
            statistics |= {f"reward/{name}/p10": float(low), f"reward/{name}/p90": float(high)}
        for k in range(column.shape[1]):
            if mask[:, k].any():
                statistics[f"reward/{name}/step_{k}"] = float(column[:, k][mask[:, k]].mean())
    return statistics


def rewards_by_tag(
    rewards: Sequence[GroupRewards],
    tags: Sequence[str | None],
    names: Sequence[str],
    config: AdvantageConfig,
) -> dict[str, float]:
    """Mean reward of the final images by the prompts' category, one tag a group; a group without a
    tag is in none, and a tag without any valid reward is not told."""
    statistics: dict[str, float] = {}
    for index, name in enumerate(names):
        by_tag: dict[str, list[Tensor]] = {}
        for tag, group in zip(tags, rewards, strict=True):
            if tag is not None:
                final = final_rewards(group.rewards_RGK[index], config)
                by_tag.setdefault(tag, []).append(final[~final.isnan()])
        for tag, found in by_tag.items():
            if (judged := torch.cat(found)).numel():
                statistics[f"reward_by_tag/{name}/{tag}"] = float(judged.mean())
    return statistics


def final_rewards(rewards_NK: Tensor, config: AdvantageConfig) -> Tensor:
    """(N,) rewards of the final images; the gains of a path telescope to it. NaN where missing."""
    return rewards_NK.sum(1) if config.per_step == "gain" else rewards_NK[:, -1]


def _mean(values: Tensor, mask: Tensor) -> float:
    kept = values[mask]
    return float(kept.mean()) if kept.numel() else 0.0
