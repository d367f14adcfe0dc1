"""Loads the backbone that a config names; a family's file is imported only where it is used."""

from collections.abc import Sequence

import torch

from services.config import ModelConfig
from services.models.backbone import Backbone


def load_backbone(
    model: ModelConfig, roles: Sequence[str], device: torch.device | None = None
) -> Backbone:
    """The model with these roles, on `device` (None takes `model.device`)."""
    device = device or resolve_device(model.device)
    if model.family == "toy":
        from services.models.toy import ToyBackbone

        return ToyBackbone(model, roles, device)
    from services.models.sd3 import Sd3Backbone

    return Sd3Backbone(model, roles, device)


def resolve_device(name: str, setting: str = "model.device") -> torch.device:
    """`auto` is the process's GPU if it has one; ValueError for a GPU that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{setting}=cuda but this process sees no GPU; use auto or cpu")
    return torch.device(name)
