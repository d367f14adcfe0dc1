"""What a worker asks of a model family: text in, images out, and a denoiser for each role.

A role is `teacher` (frozen), `generator`, `fake_score`, `surrogate` or `surrogate_ema`. All but the
generator start equal to the teacher; the generator starts from `model.generator`. A backbone holds
only the roles it was asked for, and text encoders and decoder load when they are first used.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tdm_core.denoiser import Denoiser
from tdm_core.types import Conditioning


class Backbone(Protocol):
    """One model family with some roles loaded, on one device."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        ...

    @property
    def device(self) -> torch.device:
        """Where latents and conditioning have to be."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of latents: float32, or float64 for the toy world."""
        ...

    @property
    def unconditional(self) -> Conditioning:
        """One row: the empty prompt, on the device."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """One row a text, on the device; a text's row does not depend on its neighbours."""
        ...

    def decode(self, latents_NCHW: Tensor) -> Tensor:
        """Clean latents as images (N, 3, H, W) uint8, on the CPU."""
        ...

    def denoiser(self, role: str) -> Denoiser:
        """The role's velocity field; gradients reach this role's parameters and no other's."""
        ...

    def module(self, role: str) -> nn.Module:
        """The module that holds the role's parameters (adapters share theirs)."""
        ...

    def parameters(self, role: str) -> list[nn.Parameter]:
        """Trainable parameters in a fixed order, requires_grad True; none for the teacher."""
        ...

    def tensors(self, role: str) -> dict[str, Tensor]:
        """Detached CPU copies of the role's parameters, under names that all roles share."""
        ...

    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the role's parameters in place; ValueError where names or shapes differ."""
        ...

    def copy_role(self, source: str, target: str) -> None:
        """Make `target` equal to `source`, in place."""
        ...

    def save_generator(self, folder: str, tensors: Mapping[str, Tensor]) -> str:
        """Write a generator with these tensors so that the family's own library loads it.

        Returns one line of Python that does so, with `folder` in it.
        """
        ...
