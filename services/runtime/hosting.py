"""A host: the process that workers live in, the same on every runtime."""

import importlib
import os
import sys
from typing import Any

from services.runtime.handles import GpuState, HostSpec


def limit_threads(threads: int) -> None:
    """Compute with `threads` CPU threads in this process.

    The environment reaches libraries not loaded yet; waiting threads sleep, since busy ones would
    take the cores that the other processes compute on.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    torch = sys.modules.get("torch") or importlib.import_module("torch")
    torch.set_num_threads(threads)


def gpu_in_use() -> GpuState | None:
    """The GPU that this process computes on; None where it does not (yet)."""
    torch = sys.modules.get("torch")
    return None if torch is None else gpu_of(torch.cuda)


def gpu_of(cuda: Any) -> GpuState | None:
    """The same from `torch.cuda`. Asking for one that nothing has touched would take memory there.

    Whatever the driver has against it, who only looks must not fail.
    """
    if not cuda.is_initialized():
        return None
    try:
        free, total = cuda.mem_get_info()
        name = cuda.get_device_name()
    except RuntimeError:  # a card that has failed; its worker's next call says how
        return None
    try:
        utilisation = cuda.utilization() / 100
    except Exception:  # without nvidia-ml-py, without leave, or on a part of a card
        utilisation = None
    return GpuState(name=name, used_bytes=total - free, total_bytes=total, utilisation=utilisation)


class Host:
    """Builds the workers of a `HostSpec` and calls them; one call at a time is the caller's duty.

    Making it is cheap; `build` does the work, so that a constructor's fault arrives as its own.
    """

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.workers: dict[str, Any] = {}

    def build(self, rank: int = 0, rendezvous: str = "") -> int:
        """Make the backbone, then the workers, as rank `rank` of the group at `rendezvous`.

        Answers with the id of the process.
        """
        limit_threads(self.spec.threads)
        shared: dict[str, Any] = {}
        if self.spec.ranks > 1:
            shared |= {"rank": rank, "world_size": self.spec.ranks, "rendezvous": rendezvous}
        if self.spec.backbone is not None:
            shared["backbone"] = self.spec.backbone.build()
        for name, recipe in self.spec.workers.items():
            self.workers[name] = recipe.build(**shared)
        return os.getpid()

    def call(self, worker: str, method: str, *args: Any) -> Any:
        """What `worker.method(*args)` answers."""
        return getattr(self.workers[worker], method)(*args)
