"""Finds a trained generator on disk: in a run, in one of its checkpoints, or in an export."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from services.checkpoint import load_checkpoint
from services.config import ModelConfig, config_hash, load_config
from services.manifest import CARD, MANIFEST, list_checkpoints
from services.models.backbone import Backbone
from services.models.load import load_backbone
from tdm_core.config import SamplerConfig


@dataclass(frozen=True)
class SavedGenerator:
    """A generator that can be loaded, and how it samples."""

    model: ModelConfig
    """What to load; an export's own weights are named in it."""
    sampler: SamplerConfig
    """The few-step sampler that it was trained for."""
    tensors: Mapping[str, Tensor] | None
    """The role's parameters; None where `model` alone names them."""
    origin: Mapping[str, Any]
    """Where it comes from, JSON-able."""

    def load(self) -> Backbone:
        """A backbone with the role `generator`."""
        backbone = load_backbone(self.model, ["generator"])
        if self.tensors is not None:
            backbone.load("generator", self.tensors)
        return backbone


def open_generator(source: Path, averaged: bool = True) -> SavedGenerator:
    """The generator in a run folder (its newest checkpoint), a checkpoint, or an export.

    `averaged` takes its moving average, which is what evaluations score; an export has only one.
    """
    if (source / CARD).is_file():
        return _exported(source)
    if (source / MANIFEST).is_file():
        return _in_checkpoint(source, averaged)
    if not (source / "config.yaml").is_file():
        raise ValueError(
            f"{source} is no run, checkpoint or export (no config.yaml, {MANIFEST} or {CARD}); "
            "give a folder such as runs/RUN or runs/RUN/checkpoints/step_000100"
        )
    checkpoints = list_checkpoints(source / "checkpoints")
    if not checkpoints:
        raise ValueError(f"run {source} has no checkpoint yet; wait for one, or ask it for one")
    return _in_checkpoint(checkpoints[0], averaged)


def card(saved: SavedGenerator) -> dict[str, Any]:
    """What an export says about itself."""
    return {
        "model": saved.model.model_dump(mode="json"),
        "sampler": dataclasses.asdict(saved.sampler),
        "origin": dict(saved.origin),
    }


def _exported(folder: Path) -> SavedGenerator:
    try:
        content = json.loads((folder / CARD).read_text())
        model = ModelConfig.model_validate(content["model"])
        sampler = SamplerConfig(**content["sampler"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"export {folder}: {CARD} is damaged ({error}); export again") from error
    own = {"generator": str(folder)} if model.roles == "lora" else {"teacher": str(folder)}
    return SavedGenerator(model.model_copy(update=own), sampler, None, content["origin"])


def _in_checkpoint(checkpoint: Path, averaged: bool) -> SavedGenerator:
    run = checkpoint.parent.parent
    config = load_config(run / "config.yaml", check_files=False)
    part = "generator_ema" if averaged else "generator"
    parts, facts = load_checkpoint(checkpoint, [part], config_hash(config))
    # Versions and counts only: what the workers kept (prompts, groups) is not for giving away.
    told = {name: value for name, value in facts.items() if isinstance(value, int | float | str)}
    origin = {"run": run.name, "checkpoint": checkpoint.name, "part": part, **told}
    model = config.model.model_copy(update={"generator": None})
    return SavedGenerator(model, config.algorithm.sampler, parts[part], origin)
