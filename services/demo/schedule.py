"""One optimizer step of the bundled worlds' makers, and its learning rate."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def set_lr(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int, warm: int) -> None:
    """Warm up over `warm` steps, then a cosine down to 2% of `peak` at `steps`."""
    cosine = 0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = peak * min(step / warm, 1.0) * cosine


def descend(
    optimizer: torch.optim.Optimizer, parameters: Iterator[nn.Parameter], loss: Tensor
) -> None:
    """One step along the loss's gradient, its norm clipped to 1."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
