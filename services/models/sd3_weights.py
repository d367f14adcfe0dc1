"""Reads a few-step generator (whole weights or a LoRA) and writes one that diffusers loads.

A LoRA's delta is (alpha / r) B A. Its tensors are named as diffusers names them, without the
`transformer.` prefix: `transformer_blocks.0.attn.to_q.lora_A.weight`.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from services.models.sd3_text import has_t5

LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
PREFIXES = ("base_model.model.", "transformer.")
METADATA_KEY = "lora_adapter_metadata"


@dataclass(frozen=True)
class Lora:
    """A LoRA read from a file."""

    tensors: Mapping[str, Tensor]
    """`<module>.lora_A.weight` (r, in) and `<module>.lora_B.weight` (out, r), float32."""
    scale: float
    """alpha / r; 1 where the file does not tell, as diffusers has it."""

    @property
    def rank(self) -> int:
        """r, of the first module."""
        return next(t.shape[0] for name, t in self.tensors.items() if ".lora_A." in name)


def find_lora(generator: str) -> Path | None:
    """The LoRA file that `model.generator` names, or None where it is a folder of whole weights."""
    path = Path(generator)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ValueError(f"model.generator={generator!r}: no such file")
        return path
    return next((path / name for name in LORA_FILES if (path / name).is_file()), None)


def read_lora(path: Path) -> Lora:
    """Read a LoRA in diffusers' or peft's format; ValueError for any other file."""
    with safe_open(path, framework="pt") as file:
        tensors = {_unprefixed(name): file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    unknown = [name for name in tensors if ".lora_A." not in name and ".lora_B." not in name]
    if unknown or not tensors:
        raise ValueError(
            f"model.generator={path}: {unknown[0] if unknown else 'an empty file'} is no LoRA "
            "tensor; give diffusers' pytorch_lora_weights.safetensors, or the folder of whole "
            "weights with model.roles=full"
        )
    metadata = {_unprefixed(name): value for name, value in metadata.items()}
    beside = path.with_name("adapter_config.json")
    if not metadata and beside.is_file():
        metadata = json.loads(beside.read_text())
    scale = metadata["lora_alpha"] / metadata["r"] if "lora_alpha" in metadata else 1.0
    return Lora(tensors, scale)


def _unprefixed(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def read_generator(generator: str, transformer: SD3Transformer2DModel) -> dict[str, Tensor]:
    """The generator's whole state dict: read from a folder, or a LoRA merged into the teacher."""
    lora_file = find_lora(generator)
    if lora_file is not None:
        return merge_lora(transformer.state_dict(), read_lora(lora_file))
    subfolder = "transformer" if not (Path(generator) / "config.json").is_file() else None
    try:
        model = SD3Transformer2DModel.from_pretrained(
            generator, subfolder=subfolder, torch_dtype=torch.float32, use_safetensors=True
        )
    except OSError as error:
        raise ValueError(
            f"model.generator={generator!r}: no readable transformer ({error}); give a diffusers "
            "pipeline or transformer folder, or a LoRA file"
        ) from error
    return model.state_dict()


def merge_lora(weights: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """W + scale B A for every module that the LoRA names."""
    merged = dict(weights)
    for name, a in lora.tensors.items():
        module, is_a, _ = name.partition(".lora_A.")
        if not is_a:
            continue
        if f"{module}.weight" not in merged:
            raise ValueError(f"model.generator adapts {module}, which the teacher does not have")
        delta = lora.scale * lora.tensors[f"{module}.lora_B.weight"] @ a
        weight = merged[f"{module}.weight"]
        merged[f"{module}.weight"] = weight + delta.to(weight)
    return merged


def write_lora(folder: str, tensors: Mapping[str, Tensor], rank: int, alpha: int) -> str:
    """Write `pytorch_lora_weights.safetensors` as diffusers does; returns the line that loads it.

    The adapter's alpha and rank travel in the file's header, else diffusers would assume alpha = r.
    """
    modules = sorted({name.partition(".lora_")[0] for name in tensors})
    facts = {"r": rank, "lora_alpha": alpha, "target_modules": modules}
    header = {f"transformer.{key}": value for key, value in facts.items()}
    save_file(
        {f"transformer.{name}": value.contiguous() for name, value in tensors.items()},
        Path(folder) / LORA_FILES[0],
        metadata={"format": "pt", METADATA_KEY: json.dumps(header, sort_keys=True)},
    )
    return f'pipe.load_lora_weights("{folder}")'


def write_pipeline(
    folder: str, teacher: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> str:
    """Write the teacher's pipeline with this transformer; returns the line that loads it.

    Weights are stored in the dtype of `tensors`.
    """
    source = Path(teacher)
    if not source.is_dir():
        source = Path(StableDiffusion3Pipeline.download(teacher, use_safetensors=True))
    shutil.copytree(
        source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("transformer", ".*")
    )
    # A folder that is given away should not tell where its teacher lay.
    facts = {name: value for name, value in config.items() if name != "_name_or_path"}
    transformer = cast(SD3Transformer2DModel, SD3Transformer2DModel.from_config(facts))
    transformer.to(next(iter(tensors.values())).dtype)
    transformer.load_state_dict({**transformer.state_dict(), **tensors})
    transformer.save_pretrained(Path(folder) / "transformer")
    absent = "" if has_t5(folder) else ", text_encoder_3=None, tokenizer_3=None"
    return f'StableDiffusion3Pipeline.from_pretrained("{folder}"{absent})'
