"""A batch as passes: (microbatch of whole groups) x (slot), with every draw keyed.

Row weights sum to 1 over all ranks, microbatches and slots, as a mean over groups and then over
the members of each group. So a loss is a plain weighted sum over the rows of a pass, and gradients
are summed over passes and ranks: the sharding never changes the objective.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tdm_core.config import AlgorithmConfig
from tdm_core.noise_schedule import surrogate_slot_weights, tau_from_uniform
from tdm_core.seeding import normal, rng_for
from tdm_core.types import Conditioning, FreshBatch


@dataclass(frozen=True)
class Pass:
    """One slot of one microbatch: this rank's rows, N of them."""

    config: AlgorithmConfig
    """The run's algorithm."""
    key: tuple[int, int, int, int]
    """(seed, update step, microbatch, turn): names every draw of this pass."""
    slot: int
    """j of the fake score and the generator: maps boundary j to j+1."""
    surrogate_slot: int
    """j_s of surrogate training, drawn by its own law."""
    boundaries_NKCHW: Tensor
    """(N, K+1, C, H, W)."""
    sigmas: tuple[float, ...]
    """K+1 noise levels."""
    conditioning: Conditioning
    """N rows."""
    rows_N: Tensor
    """(N,) int64: places of these rows in the batch."""
    group_N: Tensor
    """(N,) int64: the row's group, counted within the microbatch."""
    member_N: Tensor
    """(N,) int64: the row's place in its group."""
    group_ids: tuple[int, ...]
    """Groups of the microbatch."""
    group_sizes: tuple[int, ...]
    """Their sizes over all ranks."""
    weight_N: Tensor
    """(N,) float64 row weights."""
    share: float
    """Sum of the pass's row weights over all ranks."""

    def draw_tau(self, stream: str, slot: int, tau_min: float, *, shared: bool) -> Tensor:
        """tau (N,) above boundary slot+1: one scalar for the slot, or one a sample.

        All roles that name the same `stream` in the same pass get the same tau.
        """
        seed, *keys = self.key
        if shared:
            uniform = torch.rand(1, generator=rng_for(seed, stream, *keys), dtype=torch.float64)
            r = uniform.expand(len(self.rows_N))
        else:

            def one_group(group_id: int, size: int) -> Tensor:
                rng = rng_for(seed, stream, *keys, group_id)
                return torch.rand(size, generator=rng, dtype=torch.float64)

            r = self._by_group(one_group)
        sampler = self.config.sampler
        tau = tau_from_uniform(
            r, self.sigmas[slot + 1], tau_min, sampler.shift, self.config.tau_offset
        )
        return tau.to(self.boundaries_NKCHW)

    def draw_noise(self, stream: str, *, shared: bool) -> Tensor:
        """Noise (N, C, H, W): iid a sample, or one tensor for each group."""
        seed, *keys = self.key
        shape = self.boundaries_NKCHW.shape[2:]

        def one_group(group_id: int, size: int) -> Tensor:
            rng = rng_for(seed, stream, *keys, group_id)
            noise = normal((1 if shared else size, *shape), rng, self.boundaries_NKCHW)
            return noise.expand(size, *shape)

        return self._by_group(one_group)

    def _by_group(self, draw: Callable[[int, int], Tensor]) -> Tensor:
        """A whole group's draw, of which this rank keeps its own members."""
        whole = [draw(*pair) for pair in zip(self.group_ids, self.group_sizes, strict=True)]
        starts = torch.tensor([0, *self.group_sizes[:-1]]).cumsum(0)
        return torch.cat(whole)[starts[self.group_N] + self.member_N]


def passes(
    batch: FreshBatch,
    config: AlgorithmConfig,
    seed: int,
    step: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Pass]:
    """This rank's passes of one update; a group's rows are dealt out over the ranks in turn."""
    num_groups = len(batch.group_ids)
    per = config.groups_per_microbatch or num_groups
    num_slots, turns = config.sampler.num_steps, config.slots_per_update
    first_row = 0
    for microbatch, start in enumerate(range(0, num_groups, per)):
        sizes = batch.group_sizes[start : start + per]
        group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        member = torch.cat([torch.arange(size) for size in sizes])
        mine = torch.arange(len(group))[rank::world_size]
        rows = first_row + mine
        weight = 1.0 / (num_groups * turns * torch.tensor(sizes, dtype=torch.float64)[group])
        slots = torch.randperm(num_slots, generator=rng_for(seed, "slots", step, microbatch))
        for turn in range(turns):
            surrogate_rng = rng_for(seed, "surrogate_slot", step, microbatch, turn)
            yield Pass(
                config=config,
                key=(seed, step, microbatch, turn),
                slot=int(slots[turn]),
                surrogate_slot=int(
                    torch.multinomial(surrogate_slot_weights(num_slots), 1, generator=surrogate_rng)
                ),
                boundaries_NKCHW=batch.boundaries_NKCHW[rows],
                sigmas=batch.sigmas,
                conditioning={name: value[rows] for name, value in batch.conditioning.items()},
                rows_N=rows,
                group_N=group[mine],
                member_N=member[mine],
                group_ids=batch.group_ids[start : start + per],
                group_sizes=sizes,
                weight_N=weight[mine],
                share=len(sizes) / (num_groups * turns),
            )
        first_row += len(group)
