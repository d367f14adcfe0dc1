"""One role's optimizer: gradients summed over ranks, the role's own norm clipped, AdamW.

Every role has its own, so no role's gradients ever enter another's clip, and a gradient that is
not finite on any rank skips the step on all of them.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

AllReduce = Callable[[Tensor], Tensor]
"""Sums a tensor over ranks and returns it; the identity on one rank."""


def identity(tensor: Tensor) -> Tensor:
    """The sum over one rank."""
    return tensor


class RoleOptimizer:
    """AdamW over one role's parameters."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float = 1e-4,
        eps: float = 1e-8,
        max_grad_norm: float = 1.0,
        all_reduce: AllReduce = identity,
    ) -> None:
        """`all_reduce` sums over ranks in place or anew."""
        self.parameters = list(parameters)
        self.max_grad_norm = max_grad_norm
        self.all_reduce = all_reduce
        self.adamw = torch.optim.AdamW(
            self.parameters, lr=lr, betas=betas, weight_decay=weight_decay, eps=eps
        )

    def backward(self, loss: Tensor) -> None:
        """Add this loss's gradient to the role's accumulated gradient."""
        loss.backward()

    @torch.no_grad()
    def step(self) -> float:
        """Reduce, clip, step, clear. Returns the norm before the clip; a non-finite one skips."""
        gradients = [self._reduced(parameter) for parameter in self.parameters]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool(torch.isfinite(norm))
        if finite:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return float(norm)

    def _reduced(self, parameter: nn.Parameter) -> Tensor:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = self.all_reduce(parameter.grad)
        return parameter.grad

    def set_lr(self, lr: float) -> None:
        """Step at this learning rate from now on."""
        for group in self.adamw.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts as named CPU tensors."""
        return {
            f"{index}.{name}": torch.as_tensor(value).detach().cpu().clone()
            for index, entry in self.adamw.state_dict()["state"].items()
            for name, value in entry.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave."""
        whole = self.adamw.state_dict()
        whole["state"] = {}
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            whole["state"].setdefault(int(index), {})[name] = value.clone()
        self.adamw.load_state_dict(whole)
