"""What a run would take, without starting it: who runs where, and a rough memory for each process.

Weights are counted from safetensors headers, which hold the shapes; nothing is loaded. Activations
are rough, c numbers for each token, channel and layer; the rest follows from the roles:

    weights     frozen backbone + roles (+ text encoders and VAE where images are made)
    training    of trained roles: gradients, two AdamW moments, the average where there is one
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from services.config import RunConfig
from services.crew import plan as processes_of
from services.hacking_watch import too_few_evaluations
from services.run_store.run_folder import RunFolder
from services.runtime.handles import HostSpec

PROGRAM_BYTES = 480_000_000
"""Resident memory of a process that has imported torch, diffusers and Ray (measured, CPU build)."""
ACTIVATION_NUMBERS = 34
"""Numbers kept for backward a token, channel and layer: attention in and out, MLP of width 4."""
CLIP_TOKENS = 77
ADAPTED = re.compile(r"attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)\.weight$")
"""Projections that LoRA roles adapt, as services/models/lora.py names them."""

ROLES = {
    "rollout": ("generator",),
    "evaluator": ("teacher", "generator"),
    "surrogate": ("teacher", "surrogate", "surrogate_ema"),
    "generator": ("teacher", "generator", "fake_score", "surrogate"),
}
TRAINED = {"surrogate": ("surrogate",), "generator": ("generator", "fake_score")}
MAKES_IMAGES = ("rollout", "evaluator")


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    program: float = 0.0
    """The interpreter and its libraries."""
    weights: float = 0.0
    """Networks."""
    training: float = 0.0
    """Gradients, optimizer moments, averages."""
    activations: float = 0.0
    """Of the largest pass."""
    data: float = 0.0
    """The replay buffer when full."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.program + self.weights + self.training + self.activations + self.data


@dataclass(frozen=True)
class Process:
    """One process of the run (`ranks` equal ones)."""

    name: str
    workers: tuple[str, ...]
    ranks: int
    num_cpus: float
    num_gpus: float
    memory: Memory
    standby: bool = False
    """Whether it is started only while there is much to do."""


@dataclass(frozen=True)
class Plan:
    """The whole run, with everything on standby started."""

    processes: tuple[Process, ...]
    num_cpus: float
    num_gpus: float
    total_bytes: float
    remarks: tuple[str, ...]


class Checkpoint:
    """Sizes of a model folder in diffusers' format, from its headers; zeros if it is not here."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def tensors(self, part: str) -> Iterator[tuple[str, list[int]]]:
        """Name and shape of every tensor of a part, such as `transformer`."""
        files = sorted((self.folder / part).glob("*.safetensors")) if self.folder else []
        for path in files:
            yield from read_shapes(path).items()

    def count(self, part: str) -> int:
        """Numbers in a part."""
        return sum(math.prod(shape) for _, shape in self.tensors(part))

    @cached_property
    def transformer(self) -> int:
        """Numbers in the denoiser."""
        return self.count("transformer")

    @cached_property
    def around(self) -> int:
        """Numbers in the text encoders and the VAE."""
        parts = ("text_encoder", "text_encoder_2", "text_encoder_3", "vae")
        return sum(self.count(part) for part in parts)

    def adapter(self, rank: int) -> int:
        """Numbers in one LoRA role: r (in + out) for each adapted projection."""
        shapes = (shape for name, shape in self.tensors("transformer") if ADAPTED.search(name))
        return sum(rank * (shape[0] + shape[1]) for shape in shapes)

    def config(self, part: str) -> dict[str, Any]:
        """`config.json` of a part; empty where there is none."""
        path = self.folder / part / "config.json" if self.folder else None
        return json.loads(path.read_text()) if path and path.is_file() else {}


def read_shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name to shape, from the header of a safetensors file; ValueError if it is none."""
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        except (struct.error, ValueError) as error:
            raise ValueError(f"{path} is no safetensors file ({error}); fetch it again") from error
    return {name: facts["shape"] for name, facts in header.items() if name != "__metadata__"}


def find_checkpoint(teacher: str) -> Path | None:
    """The teacher's folder: as given, or as the hub's cache on this machine has it."""
    if Path(teacher).is_dir():
        return Path(teacher)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(teacher, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):  # not here yet, or no hub name (`toy`)
        return None


def estimate(config: RunConfig) -> Plan:
    """The run's processes, each with its memory; nothing is started or loaded."""
    checkpoint = Checkpoint(find_checkpoint(config.model.teacher))
    sizes = _Sizes(config, checkpoint)
    specs = processes_of(config, RunFolder(config.run.dir / "dry-run"))
    processes = tuple(_process(spec, sizes) for spec in specs)
    return Plan(
        processes=processes,
        num_cpus=sum(process.num_cpus * process.ranks for process in processes),
        num_gpus=sum(process.num_gpus * process.ranks for process in processes),
        total_bytes=sum(process.memory.total * process.ranks for process in processes),
        remarks=tuple(_remarks(config, checkpoint)),
    )


def _remarks(config: RunConfig, checkpoint: Checkpoint) -> Iterator[str]:
    if config.model.family == "toy":
        yield "The toy world's networks are too small to count."
    elif checkpoint.folder is None:
        yield (
            f"{config.model.teacher} is not on this machine yet: its weights are not in the "
            "estimate."
        )
    yield "Activations are rough; what rewards load (detectors, OCR) is not counted."
    if warning := too_few_evaluations(config):
        yield f"Warning: {warning}."


def _process(spec: HostSpec, sizes: "_Sizes") -> Process:
    memory = Memory(program=0.0 if sizes.config.cluster.runtime == "local" else PROGRAM_BYTES)
    kinds = [name.partition("-")[0] for name in spec.workers]
    if spec.backbone is not None:  # one backbone with every role, for all of the host's workers
        memory = replace(memory, weights=sizes.weights(("teacher", *_all_roles()), images=True))
    for kind in kinds:
        memory = _with_worker(memory, kind, sizes, spec)
    return Process(
        spec.name,
        tuple(spec.workers),
        spec.ranks,
        spec.num_cpus,
        spec.num_gpus,
        memory,
        spec.standby,
    )


def _all_roles() -> tuple[str, ...]:
    return ("generator", "fake_score", "surrogate", "surrogate_ema")


def _with_worker(memory: Memory, kind: str, sizes: "_Sizes", spec: HostSpec) -> Memory:
    if kind == "replay":
        return replace(memory, data=sizes.buffer)
    if kind not in ROLES:
        return memory
    weights = memory.weights
    if spec.backbone is None:
        weights += sizes.weights(ROLES[kind], images=kind in MAKES_IMAGES)
    training = memory.training + sizes.training(kind, spec.ranks)
    activations = max(memory.activations, sizes.activations(kind, spec.ranks))
    return replace(memory, weights=weights, training=training, activations=activations)


class _Sizes:
    """Bytes of the parts of one run."""

    def __init__(self, config: RunConfig, checkpoint: Checkpoint) -> None:
        self.config, self.checkpoint = config, checkpoint
        model = config.model
        self.frozen_bytes = 2 if model.dtype == "bfloat16" else 4
        self.lora = model.roles == "lora"
        self.role = checkpoint.adapter(model.lora_rank) if self.lora else checkpoint.transformer
        self.transformer = checkpoint.config("transformer")

    def weights(self, roles: tuple[str, ...], images: bool) -> float:
        """Backbone and roles in a process, with encoders and VAE where it makes images."""
        around = self.checkpoint.around * self.frozen_bytes if images else 0
        if not self.lora:
            return 4.0 * self.role * len(roles) + around
        adapters = sum(role != "teacher" for role in roles)
        return self.checkpoint.transformer * self.frozen_bytes + 4.0 * self.role * adapters + around

    def training(self, kind: str, ranks: int) -> float:
        """Gradients, moments (shared out by ZeRO), and the generator's average."""
        stage = self.config.cluster.zero_stage if kind == "generator" else 0
        gradients = 4.0 / (ranks if stage >= 2 else 1)
        moments = 8.0 / (ranks if stage >= 1 else 1)
        average = 4.0 if kind == "generator" else 0.0
        return self.role * (len(TRAINED.get(kind, ())) * (gradients + moments) + average)

    def activations(self, kind: str, ranks: int) -> float:
        """The largest pass: all layers where it is trained, one layer where it is only run."""
        algorithm = self.config.algorithm
        groups = algorithm.groups_per_microbatch or algorithm.num_groups
        rows = math.ceil(groups * algorithm.group_size / ranks)
        if kind == "rollout":
            rows = self.config.cluster.rollout_groups * algorithm.group_size
        if kind == "evaluator":
            rows = self.config.evaluation.batch_size
        layers = self.transformer.get("num_layers", 0) if kind in TRAINED else 1
        heads = self.transformer.get("num_attention_heads", 0)
        width = heads * self.transformer.get("attention_head_dim", 0)
        numbers = rows * self.num_tokens * width * layers * ACTIVATION_NUMBERS
        return float(numbers * self.frozen_bytes)

    @property
    def num_tokens(self) -> int:
        """Image and text tokens of one image."""
        _, height, width = self.latent_shape
        image = height * width // self.transformer.get("patch_size", 1) ** 2
        return image + CLIP_TOKENS + self.config.model.max_sequence_length

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W); (0, 0, 0) where the model is not here."""
        vae = self.checkpoint.config("vae")
        scale = 2 ** (len(vae["block_out_channels"]) - 1) if vae else 1
        own = self.transformer.get("sample_size", 0) * scale
        height, width = (self.config.model.image_size if vae else None) or (own, own)
        return self.transformer.get("in_channels", 0), height // scale, width // scale

    @property
    def buffer(self) -> float:
        """The replay buffer when full: boundaries and one row of embeddings a group."""
        algorithm = self.config.algorithm
        path = algorithm.group_size * (algorithm.sampler.num_steps + 1)
        tokens = CLIP_TOKENS + self.config.model.max_sequence_length
        row = tokens * self.transformer.get("joint_attention_dim", 0)
        numbers = path * math.prod(self.latent_shape) + row
        return 4.0 * algorithm.replay.capacity_groups * numbers
