"""The ranks of one learner: a torch.distributed group of equals, one process each.

Every rank sees the same batch and trains its own rows; sums cross ranks here and nowhere else, so
after every step all ranks hold the same parameters (`check_agreement`).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

MAX_WAIT_S = 600.0
"""A collective that waits longer for another rank raises."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among the ranks; `group` is None for a rank on its own."""

    rank: int = 0
    """0 .. world_size - 1."""
    world_size: int = 1
    """Number of ranks."""
    group: dist.ProcessGroup | None = None
    """Collectives of this learner alone."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Sum `tensor` over ranks in place, and return it; every rank gets the same bits."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    @torch.no_grad()
    def sum_metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Sum scalar tensors over ranks, in one reduction; every rank has the same names."""
        names = sorted(metrics)
        if not names:
            return {}
        values = torch.stack([metrics[name].double() for name in names])
        return dict(zip(names, self.all_reduce_sum(values).tolist(), strict=True))

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite every rank's `tensors` with rank 0's."""
        if self.group is not None:
            for tensor in tensors:
                dist.broadcast(tensor, group=self.group, group_src=0)

    def check_agreement(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Raise RuntimeError on every rank unless all hold bit-equal `tensors`."""
        if self.group is None:
            return
        tensors = list(tensors)
        digest = _digest(tensors)
        device = tensors[0].device
        extremes = torch.tensor([digest, -digest], dtype=torch.int64, device=device)
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX, group=self.group)
        largest, smallest = int(extremes[0]), -int(extremes[1])
        if largest != smallest:
            raise RuntimeError(
                f"{name}: {self.world_size} ranks hold different parameters (rank {self.rank} has "
                f"digest {digest:x}, the extremes are {smallest:x} and {largest:x}); training on "
                "would mix different models, so resume from the last checkpoint"
            )

    def leave(self) -> None:
        """Leave the process group; later collectives of this process fail."""
        if self.group is not None and dist.is_initialized():
            dist.destroy_process_group()


def join(
    rank: int,
    world_size: int,
    rendezvous: str,
    device: torch.device,
    max_wait_s: float = MAX_WAIT_S,
) -> Ranks:
    """Meet the other ranks at `rendezvous` ("host:port", served by rank 0); returns when all came.

    gloo on a CPU, nccl on a GPU. Learners in one process share its process group and get a group
    of their own, so their collectives never mix. One rank needs no rendezvous and no group.
    """
    if world_size == 1:
        return Ranks()
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}: allowed 0 to {world_size - 1} (world_size={world_size})")
    timeout = timedelta(seconds=max_wait_s)
    if ":" not in rendezvous:
        raise ValueError(
            f"rendezvous={rendezvous!r}: {world_size} ranks need the address of rank 0 as "
            "host:port, such as 127.0.0.1:29500"
        )
    if not dist.is_initialized():
        dist.init_process_group(
            backend="nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{rendezvous}",
            rank=rank,
            world_size=world_size,
            timeout=timeout,
        )
    present = (dist.get_rank(), dist.get_world_size())
    if present != (rank, world_size):
        raise ValueError(
            f"rank {rank} of {world_size} cannot join: this process is already rank {present[0]} "
            f"of {present[1]}; learners that share a process need equal numbers of ranks"
        )
    group = dist.new_group(timeout=timeout)
    assert isinstance(group, dist.ProcessGroup), "every rank is a member"
    return Ranks(rank, world_size, group)


def ensure_process_group() -> None:
    """Make the group of one that DeepSpeed asks for; no port, no name lookup, no launcher."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def _digest(tensors: Iterable[Tensor]) -> int:
    """62 bits of SHA-256 over the tensors' bytes, so that its negative fits int64 too."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return int.from_bytes(sha.digest()[:8], "little") >> 2
