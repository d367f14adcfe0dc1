"""A learner's passes: its rank's rows onto its device, its terms summed over passes and ranks.

A batch stays on the CPU, for it may be larger than the device; a pass's rows move when it is due.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from services.ranks import Ranks
from tdm_core.config import AlgorithmConfig
from tdm_core.microbatches import Pass, passes
from tdm_core.types import FreshBatch


def passes_on(
    device: torch.device,
    batch: FreshBatch,
    algorithm: AlgorithmConfig,
    seed: int,
    step: int,
    ranks: Ranks,
) -> Iterator[Pass]:
    """`tdm_core.microbatches.passes` of this rank, with latents and conditioning on `device`."""
    for p in passes(batch, algorithm, seed, step, ranks.rank, ranks.world_size):
        yield replace(
            p,
            boundaries_NKCHW=p.boundaries_NKCHW.to(device),
            conditioning={name: rows.to(device) for name, rows in p.conditioning.items()},
        )


class PassTotals(dict[str, Tensor]):
    """Terms of an update, which are weighted so that their sum over all passes is a mean."""

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a pass's scalar terms, in float64 and without waiting for the device."""
        for name, value in terms.items():
            value = value.detach().double()
            self[name] = self[name] + value if name in self else value

    def over(self, ranks: Ranks) -> dict[str, float]:
        """The sums over all ranks; every rank must call it."""
        return ranks.sum_metrics(self)


class RowMeans:
    """A number of every row of a batch at every denoising step, as its mean over the passes that
    saw the row at that step."""

    def __init__(self, batch: FreshBatch, device: torch.device) -> None:
        # On the device, so that nobody waits for it before the end.
        num_steps = len(batch.sigmas) - 1
        self._sums_2NK = torch.zeros(2, sum(batch.group_sizes), num_steps, device=device)

    def add(self, rows_N: Tensor, step: int, values_N: Tensor) -> None:
        """A pass's rows (N,) int64 and their values (N,)."""
        pairs = torch.stack([values_N, torch.ones_like(values_N)]).to(self._sums_2NK)
        self._sums_2NK[:, :, step].index_add_(1, rows_N.to(self._sums_2NK.device), pairs)

    def over(self, ranks: Ranks) -> Tensor:
        """(N, K) float64 over all ranks, NaN where no pass was; every rank must call it."""
        total, count = ranks.all_reduce_sum(self._sums_2NK).cpu().double()
        return total / count
