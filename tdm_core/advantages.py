"""From rewards to per-step group advantages (algorithm.md 3, rewards.md).

    A_i = clip((r_i - mean_g r) / spread, -5, 5), re-centred in its group
in float64. `batch_std`: spread = population std over the batch + 1e-4 (the authors').
`rolling_std`: spread = std of group-centred rewards over the last groups, floored. A missing reward
is a mask: it enters no mean and no spread. Column k of K belongs to the step that made boundary
k+1.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tdm_core.config import AdvantageConfig


def per_step_rewards(rewards_GS: Tensor, num_steps: int) -> Tensor:
    """Rewards (..., G, S) as columns (..., G, K), NaN where missing.

    S = 1 (`terminal`): the final reward in every column, exact since the path is deterministic.
    S = K (`gain`): column 0 is the first prediction's reward, column k what step k added.
    """
    if rewards_GS.shape[-1] == 1:
        return rewards_GS.expand(*rewards_GS.shape[:-1], num_steps).clone()
    if rewards_GS.shape[-1] != num_steps:
        raise ValueError(
            f"{rewards_GS.shape[-1]} rewards a sample; allowed are 1 (terminal) or {num_steps}"
        )
    return torch.cat([rewards_GS[..., :1], rewards_GS.diff(dim=-1)], dim=-1)


def masked_mean(values: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Mean over valid entries along `dim`, kept as an axis of 1; 0 where none is valid."""
    count = valid.sum(dim, keepdim=True).clamp(min=1)
    return torch.where(valid, values, 0.0).sum(dim, keepdim=True) / count


def centred(values_GK: Tensor, valid_GK: Tensor) -> Tensor:
    """Group-centred rewards (G, K); 0 where invalid, or where fewer than 2 are valid."""
    enough = valid_GK.sum(0, keepdim=True) >= 2
    shifted = values_GK - masked_mean(values_GK, valid_GK, 0)
    return torch.where(valid_GK & enough, shifted, 0.0)


class RollingSpread:
    """Std of group-centred values over the last groups, a column each."""

    def __init__(self, num_groups: int) -> None:
        self.window: deque[tuple[list[float], list[float]]] = deque(maxlen=num_groups)

    def add(self, centred_GK: Tensor, valid_GK: Tensor) -> None:
        """Append one group; a column with fewer than two valid members adds nothing.

        A group without any such column takes no place: a reward that few groups have, as people's,
        is remembered over as many of them.
        """
        counted = valid_GK & (valid_GK.sum(0, keepdim=True) >= 2)
        if counted.any():
            squares = torch.where(counted, centred_GK.square(), 0.0).sum(0)
            self.window.append((squares.tolist(), counted.sum(0).double().tolist()))

    def std(self, num_columns: int) -> Tensor:
        """(K,) float64, 0 in a column where nothing was seen."""
        if not self.window:
            return torch.zeros(num_columns, dtype=torch.float64)
        squares, counts = (
            torch.tensor(part, dtype=torch.float64).sum(0)
            for part in zip(*self.window, strict=True)
        )
        return (squares / counts.clamp(min=1)).sqrt()

    def state(self) -> list[list[list[float]]]:
        """JSON-able; what `load_state` takes."""
        return [[squares, counts] for squares, counts in self.window]

    def load_state(self, state: Sequence[Sequence[Sequence[float]]]) -> None:
        """Restore what `state` gave."""
        self.window.clear()
        self.window.extend((list(squares), list(counts)) for squares, counts in state)


@dataclass(frozen=True)
class GroupRewards:
    """Per-step rewards of one group."""

    rewards_RGK: Tensor
    """(R, G, K) float64, NaN where invalid."""
    valid_RGK: Tensor
    """(R, G, K) bool."""


@dataclass(frozen=True)
class GroupAdvantages:
    """What the surrogate learns from one group."""

    advantages_GK: Tensor
    """(G, K) float64, 0 where invalid."""
    valid_GK: Tensor
    """(G, K) bool."""
    clipped_GK: Tensor
    """(G, K) bool: cut by the clip, before any re-centring."""


class AdvantageNormaliser:
    """Turns groups of rewards into advantages, with the rolling spreads as its only state."""

    def __init__(
        self,
        config: AdvantageConfig,
        weights: Sequence[float],
        floors: Sequence[float] = (),
    ) -> None:
        """`weights`: one for each of the R rewards; `floors` too, in the reward's own unit: what
        its rolling spread is at least, where `std_floor` is lower."""
        self.config = config
        self.floors = tuple(floors) or (0.0,) * len(weights)
        assert len(self.floors) == len(weights), (floors, weights)
        self.weights = torch.tensor(list(weights), dtype=torch.float64)
        count = len(weights) if config.combination == "per_reward_advantage" else 1
        self.spreads = [RollingSpread(config.rolling_groups) for _ in range(count)]

    def __call__(self, groups: Sequence[GroupRewards]) -> list[GroupAdvantages]:
        """Advantages of a drawn batch; the rolling window takes the batch in first."""
        terms = [self._terms(group) for group in groups]
        spreads = self._spreads(groups, terms)
        results = []
        for group, per_reward in zip(groups, terms, strict=True):
            valid = group.valid_RGK.any(0)
            # torch.where keeps 0/0 of a constant batch at 0, as the floor alone would.
            scaled = sum(
                torch.where(term == 0, 0.0, term / spread)
                for term, spread in zip(per_reward, spreads, strict=True)
            )
            assert isinstance(scaled, Tensor)
            advantages = scaled.clamp(-self.config.clip, self.config.clip)
            if self.config.recentre:
                advantages = centred(advantages, valid)
            results.append(
                GroupAdvantages(
                    torch.where(valid, advantages, 0.0), valid, scaled.abs() > self.config.clip
                )
            )
        return results

    def _terms(self, group: GroupRewards) -> list[Tensor]:
        """Weighted centred rewards: one term, or one for each reward. An absent reward adds 0."""
        each = [
            weight * centred(values, valid)
            for weight, values, valid in zip(
                self.weights, group.rewards_RGK, group.valid_RGK, strict=True
            )
        ]
        if self.config.combination == "per_reward_advantage":
            return each
        return [torch.stack(each).sum(0)]

    def _spreads(
        self, groups: Sequence[GroupRewards], terms: Sequence[Sequence[Tensor]]
    ) -> list[Tensor]:
        per_reward = self.config.combination == "per_reward_advantage"
        spreads = []
        for index, rolling in enumerate(self.spreads):
            masks = [g.valid_RGK[index] if per_reward else g.valid_RGK.any(0) for g in groups]
            values = [term[index] for term in terms]
            if self.config.normaliser == "rolling_std":
                for value, mask in zip(values, masks, strict=True):
                    rolling.add(value, mask)
                spreads.append(self._rolling_spread(rolling, index, values[0].shape[1]))
            else:
                spreads.append(self._batch_spread(groups, masks, index))
        return spreads

    def _rolling_spread(self, rolling: RollingSpread, index: int, num_columns: int) -> Tensor:
        """Floored std (K,); with one spread a reward in the reward's own unit."""
        weights, std = self.weights.abs().tolist(), rolling.std(num_columns)
        if self.config.combination != "per_reward_advantage":
            floor = sum(w * floor for w, floor in zip(weights, self.floors, strict=True))
            return std.clamp(min=max(floor, self.config.std_floor))
        # Each reward's weight scales its spread too, so it is taken out again here.
        floor = max(weights[index] * self.floors[index], self.config.std_floor)
        return std.clamp(min=floor) / weights[index]

    def _batch_spread(
        self, groups: Sequence[GroupRewards], masks: Sequence[Tensor], index: int
    ) -> Tensor:
        """Population std of the raw (combined) rewards over the whole batch, plus the floor."""
        if self.config.combination == "per_reward_advantage":
            raw = torch.cat([g.rewards_RGK[index] for g in groups])
        else:
            raw = torch.cat(self._raw_sums(groups))
        mask = torch.cat(list(masks))
        deviation = torch.where(mask, raw - masked_mean(raw, mask, 0), 0.0)
        return masked_mean(deviation.square(), mask, 0).sqrt()[0] + self.config.std_floor

    def _raw_sums(self, groups: Sequence[GroupRewards]) -> list[Tensor]:
        """Weighted sums of raw rewards (G, K): an absent one stands at its group's mean, or at the
        batch's where the whole group lacks it, never at 0."""
        overall = masked_mean(
            torch.cat([g.rewards_RGK for g in groups], dim=1),
            torch.cat([g.valid_RGK for g in groups], dim=1),
            1,
        )
        sums = []
        for group in groups:
            present = group.valid_RGK.any(1, keepdim=True)
            means = torch.where(
                present, masked_mean(group.rewards_RGK, group.valid_RGK, 1), overall
            )
            filled = torch.where(group.valid_RGK, group.rewards_RGK, means)
            sums.append((self.weights[:, None, None] * filled).sum(0))
        return sums

    def state(self) -> list[list[list[list[float]]]]:
        """JSON-able; what `load_state` takes."""
        return [spread.state() for spread in self.spreads]

    def load_state(self, state: Sequence[Sequence[Sequence[Sequence[float]]]]) -> None:
        """Restore what `state` gave."""
        for spread, saved in zip(self.spreads, state, strict=True):
            spread.load_state(saved)
