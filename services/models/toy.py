"""The toy world as a model family: prompts `label N`, latents (2, 1, 1), every role a full copy."""

from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from services.config import ModelConfig
from services.models.roles import FullCopies, copy_tensors, load_tensors, tensors_of
from tdm_core.denoiser import Denoiser
from tdm_core.toy import ToyDenoiser, decode, two_by_two
from tdm_core.types import Conditioning


class ToyBackbone:
    """See `Backbone`."""

    def __init__(self, model: ModelConfig, roles: Sequence[str], device: torch.device) -> None:
        """Computes in float64 where `model.dtype` says so, else in float32."""
        self.device = device
        self.dtype = torch.float64 if model.dtype == "float64" else torch.float32
        self._world = two_by_two(self.dtype)
        self._roles = FullCopies(ToyDenoiser(self._world).to(device), roles)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Backbone`."""
        return self._world.latent_shape

    @property
    def unconditional(self) -> Conditioning:
        """See `Backbone`."""
        return _to(self._world.unconditional, self.device)

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`; ValueError for a text that is not `label N`."""
        labels = [_label(text, self._world.weights_LM.shape[0]) for text in texts]
        return _to(self._world.conditioning(labels), self.device)

    def decode(self, latents_NCHW: Tensor) -> Tensor:
        """See `Backbone`."""
        return decode(latents_NCHW).cpu()

    def denoiser(self, role: str) -> Denoiser:
        """See `Backbone`."""
        return self._roles.module(role)

    def module(self, role: str) -> nn.Module:
        """See `Backbone`."""
        return self._roles.module(role)

    def parameters(self, role: str) -> list[nn.Parameter]:
        """See `Backbone`."""
        return list(self._roles.named_parameters(role).values())

    def tensors(self, role: str) -> dict[str, Tensor]:
        """See `Backbone`."""
        return tensors_of(self._roles, role)

    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """See `Backbone`."""
        load_tensors(self._roles, role, tensors)

    def copy_role(self, source: str, target: str) -> None:
        """See `Backbone`."""
        copy_tensors(self._roles, source, target)

    def save_generator(self, folder: str, tensors: Mapping[str, Tensor]) -> str:
        """See `Backbone`; the toy has no library, so plain safetensors."""
        save_file(dict(tensors), f"{folder}/generator.safetensors")
        return f'safetensors.torch.load_file("{folder}/generator.safetensors")'


def _label(text: str, num_labels: int) -> int:
    word, _, number = text.partition(" ")
    if word != "label" or not number.isdecimal() or int(number) >= num_labels:
        raise ValueError(
            f"prompt {text!r}: the toy world knows `label 0` to `label {num_labels - 1}`"
        )
    return int(number)


def _to(conditioning: Conditioning, device: torch.device) -> Conditioning:
    return {name: rows.to(device) for name, rows in conditioning.items()}
