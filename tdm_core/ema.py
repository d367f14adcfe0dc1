"""Exponential moving averages of parameters: averaged <- d averaged + (1-d) current."""

from collections.abc import Iterable

import torch
from torch import Tensor

from tdm_core.config import GeneratorConfig, SurrogateConfig


@torch.no_grad()
def ema_update(averaged: Iterable[Tensor], current: Iterable[Tensor], retained: float) -> None:
    """Move `averaged` in place; `retained` d in [0, 1] is the fraction of the old value kept."""
    for old, new in zip(averaged, current, strict=True):
        old.lerp_(new.to(old), 1 - retained)


def surrogate_retained(step: int, config: SurrogateConfig) -> float:
    """d = min(.3, .001 + .001 step) after the surrogate's step number `step`, counted from 0."""
    return min(config.ema_max, config.ema_start + config.ema_slope * step)


def generator_retained(step: int, config: GeneratorConfig) -> float:
    """d = min((1+t)/(ramp+t), cap) after the generator's step number t, counted from 0."""
    return min((1 + step) / (config.ema_ramp + step), config.ema_max)
