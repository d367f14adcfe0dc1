"""Roles as LoRA adapters on one frozen backbone, by peft.

peft's own switches (`set_adapter`, `disable_adapters`) also flip requires_grad, and a parameter
whose flag is down at backward time loses its gradient silently. So a role is chosen here by naming
the active adapter alone, and unnamed again after the forward pass; no flag is ever touched. A layer
that has no adapter of the active name gives its base output: that is the teacher.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from services.models.roles import check_roles, load_tensors, loaded
from services.models.sd3_weights import Lora, find_lora, read_lora
from tdm_core.seeding import normal, rng_for

PROJECTIONS = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
"""The joint attention's eight projections (algorithm.md 1)."""


class LoraRoles:
    """Every role an adapter: A gaussian, B zero, so that all start equal to the teacher."""

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        roles: Sequence[str],
        rank: int,
        alpha: int,
        generator: str | None = None,
    ) -> None:
        """`generator` is the LoRA file (or its folder) that the generator starts from."""
        check_roles(roles)
        self._transformer = transformer.requires_grad_(False)
        self._roles = tuple(roles)
        self._lock = threading.RLock()
        for role in roles:
            if role != "teacher":
                self._add_adapter(role, rank, alpha)
        self._layers = [m for m in transformer.modules() if isinstance(m, BaseTunerLayer)]
        self._activate("teacher")
        if generator is not None:
            load_tensors(self, "generator", self._start(generator, rank, alpha))

    def _add_adapter(self, role: str, rank: int, alpha: int) -> None:
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(PROJECTIONS))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several by design
            inject_adapter_in_model(config, self._transformer, role)
        # The EMA starts as the surrogate itself, not merely as an equal function.
        rng = rng_for(0, "lora", _KEYS[role])
        for name, parameter in self._adapter_parameters(role):
            parameter.data = parameter.data.float()
            is_a = ".lora_A." in name
            start = normal(tuple(parameter.shape), rng, parameter) / rank if is_a else 0.0
            parameter.data.copy_(torch.as_tensor(start))

    def _adapter_parameters(self, role: str) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self._transformer.named_parameters():
            if name.endswith(f".{role}.weight"):
                yield name, parameter

    def _start(self, generator: str, rank: int, alpha: int) -> dict[str, Tensor]:
        """The file's adapter at this run's rank and scale: the same function of the input."""
        path = find_lora(generator)
        if path is None:
            raise ValueError(
                f"model.generator={generator!r} holds whole weights, but with model.roles=lora "
                "every role is an adapter on the frozen teacher; give a LoRA file, or set "
                "model.roles=full"
            )
        return _resized(read_lora(path), path, self.named_parameters("generator"), rank, alpha)

    def run(self, role: str, *args: Any, **kwargs: Any) -> Any:
        """The backbone's forward pass with the role's adapter alone."""
        with self._lock, self._active(loaded(role, self._roles)):
            return self._transformer(*args, **kwargs)

    @contextmanager
    def _active(self, role: str) -> Iterator[None]:
        self._activate(role)
        try:
            yield
        finally:
            self._activate("teacher")

    def _activate(self, role: str) -> None:
        for layer in self._layers:
            layer._active_adapter = [role]

    def module(self, role: str) -> nn.Module:
        """The shared backbone, adapters and all."""
        loaded(role, self._roles)
        return self._transformer

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """The adapter's A and B, named as diffusers names them in a LoRA file."""
        loaded(role, self._roles)
        return {
            name.replace(f".{role}.weight", ".weight"): parameter
            for name, parameter in self._adapter_parameters(role)
        }


_KEYS = {"generator": 1, "fake_score": 2, "surrogate": 3, "surrogate_ema": 3}


def _resized(
    lora: Lora, path: Path, own: dict[str, nn.Parameter], rank: int, alpha: int
) -> dict[str, Tensor]:
    """`lora` at `rank` and scale alpha / rank, over this run's `own` starting adapter.

    B is rescaled. A smaller adapter fills the first rows; the others keep their random A and zero
    B, which add nothing and can learn.
    """
    if lora.rank > rank:
        raise ValueError(
            f"model.generator={path} has rank {lora.rank}, above model.lora_rank={rank}; "
            f"set model.lora_rank={lora.rank} or more"
        )
    unknown = sorted(lora.tensors.keys() - own.keys())
    if unknown:
        raise ValueError(
            f"model.generator={path} adapts {unknown[0]} (of {len(unknown)} such tensors), but "
            "roles adapt the joint attention's projections only; merge it with model.roles=full"
        )
    start = {name: parameter.detach().clone() for name, parameter in own.items()}
    for name, value in lora.tensors.items():
        if ".lora_A." in name:
            start[name][: lora.rank] = value
        else:
            start[name][:, : lora.rank] = value * (lora.scale * rank / alpha)
    return start
