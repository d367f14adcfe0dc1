"""Where the weights of a reward's models lie, and how they are read: safetensors and JSON only.

Nothing is downloaded and nothing unpickled. A name of the hub means what this machine's cache holds
of it, so that a run starts with all its weights or says what to fetch.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from services.models.load import resolve_device

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
READ = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""Suffixes of what is read of a folder: weights, configs, chat templates, vocabularies."""
PROBES, PROBE_BYTES = 16, 1 << 16
_CONVERT = (
    "import sys, torch; from safetensors.torch import save_file; "
    "s = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    "s = s.get('state_dict', s); "
    "save_file({k: v.clone() for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])"
)


@dataclass(frozen=True)
class Placement:
    """Where a model computes, and in what; checked when made, a GPU only when used."""

    device: str = "auto"
    """`auto` (a GPU where the process has one), `cpu` or `cuda`."""
    dtype: str = "float32"
    """Of weights and activations; scores leave as float32."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("device", self.device, ("auto", "cpu", "cuda")),
            ("dtype", self.dtype, tuple(DTYPES)),
        ):
            if value not in allowed:
                raise ValueError(f"option {name}={value!r}: allowed are {', '.join(allowed)}")

    @property
    def torch_device(self) -> torch.device:
        """The device itself; ValueError for a GPU that is not there."""
        return resolve_device(self.device, "option device")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of weights and activations."""
        return DTYPES[self.dtype]


def find_checkpoint(name: Any, option: str, needs: Iterable[str] = ()) -> Path:
    """The folder or .safetensors file that `name` is: a path, or a hub name in the local cache.

    `needs` are files that a folder must hold. ValueError says what to fetch or to convert.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"option {option}={name!r}: give a path or a hub name")
    path = Path(name).expanduser()
    if path.suffix in PICKLED:
        raise ValueError(
            f"option {option}={name!r} is a pickle, which can run anything; convert it once, where "
            f'you trust it: python -c "{_CONVERT}" {path.name} {path.stem}.safetensors'
        )
    if not (path.is_dir() or (path.is_file() and path.suffix == ".safetensors")):
        path = _cached(name, option)
    missing = [file for file in needs if path.is_dir() and not (path / file).is_file()]
    if missing:
        raise ValueError(f"option {option}={name!r}: {path} lacks {', '.join(missing)}")
    return path


def find_weights(name: Any, option: str, needs: Iterable[str] = ()) -> Path:
    """As `find_checkpoint`, of one that holds weights too."""
    path = find_checkpoint(name, option, needs)
    weight_files(path)
    return path


def weight_files(path: Path) -> list[Path]:
    """The safetensors that make up a checkpoint: its model file, its shards, or its only file."""
    if path.is_file():
        return [path]
    for pattern in ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors"):
        files = sorted(path.glob(pattern))
        if files and (pattern != "*.safetensors" or len(files) == 1):
            return files
    found = ", ".join(sorted(file.name for file in path.glob("*.safetensors"))) or "no safetensors"
    raise ValueError(
        f"{path} holds {found}; a checkpoint is model.safetensors, its shards, or one file. "
        f"If it has a pickle instead, convert that once, where you trust it: "
        f'python -c "{_CONVERT}" IN.pt OUT.safetensors'
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, on the CPU."""
    from safetensors.torch import load_file

    return {name: tensor for file in weight_files(path) for name, tensor in load_file(file).items()}


def fingerprint(*paths: Path) -> str:
    """Eight hex digits that change with a checkpoint's files: names, sizes, sampled bytes."""
    digest = hashlib.sha256()
    for path in paths:
        folder = sorted(file for file in path.glob("*") if file.suffix in READ)
        for file in [path] if path.is_file() else folder:
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as stream:
                for probe in range(PROBES):
                    stream.seek(max(size - PROBE_BYTES, 0) * probe // (PROBES - 1))
                    digest.update(stream.read(PROBE_BYTES))
    return digest.hexdigest()[:8]


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Load exactly the module's parameters; ValueError names what does not fit."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [
        *(f"{name} is missing" for name in wanted if name not in got),
        *(f"{name} is unknown" for name in got if name not in wanted),
        *(
            f"{name} has shape {got[name]} where {shape} is needed"
            for name, shape in wanted.items()
            if name in got and got[name] != shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(problems[:3])}{more}"
        )
    module.load_state_dict(dict(tensors))


def load_pretrained(model_class: Any, path: Path | None, **settings: Any) -> Any:
    """A transformers model from a local checkpoint; ValueError where that leaves parameters unset.

    transformers itself only warns, and goes on with random numbers in their place.
    """
    model, report = model_class.from_pretrained(
        path, local_files_only=True, use_safetensors=True, output_loading_info=True, **settings
    )
    parameters = {name for name, _ in model.named_parameters()}
    unset = sorted(parameters & set(report["missing_keys"]))
    misfits = [*unset, *map(str, report["mismatched_keys"])]
    if misfits:
        raise ValueError(
            f"{path or 'the checkpoint'} is none of {model_class.__name__}: it does not set "
            f"{', '.join(misfits[:3])}{f' and {len(misfits) - 3} more' if misfits[3:] else ''}; "
            "fetch the whole checkpoint, of that model"
        )
    return model


def ready(module: nn.Module, placement: Placement) -> nn.Module:
    """The module frozen, in eval mode, on its device and in its type."""
    module.requires_grad_(False)
    return module.eval().to(placement.torch_device, placement.torch_dtype)


def _cached(name: str, option: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"option {option}={name!r} is neither a folder nor a .safetensors file here, nor in "
            f"this machine's cache of the hub; fetch it wherever it runs: hf download {name}"
        ) from error
