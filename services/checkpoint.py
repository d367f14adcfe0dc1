"""A checkpoint is a folder that is whole or is not there: safetensors parts and a manifest.

    step_000100/  manifest.json  generator.safetensors  generator_optimizer.safetensors ...
The parts are written to a hidden folder beside it, synced to the disk, and renamed in one step; the
manifest holds every file's SHA-256, which a load verifies before it believes a tensor.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from services.manifest import FORMAT, MANIFEST, list_checkpoints, read_manifest

Parts = dict[str, dict[str, Tensor]]


def save_checkpoint(
    folder: Path,
    tensors_by_name: Mapping[str, Mapping[str, Tensor]],
    facts: Mapping[str, Any],
    keep: int | None = None,
    is_spared: Callable[[str], bool] = lambda name: False,
) -> Path:
    """Write `folder` from part name -> tensor name -> tensor, and JSON-able facts; its path.

    A kill at any moment leaves the checkpoints that were there readable. With `keep`, only the
    newest `keep` checkpoints beside it stay, and those whose name `is_spared`. One writer at a
    time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder.parent)
    partial = _hidden(folder, "partial")
    partial.mkdir()
    files = {}
    for name, tensors in tensors_by_name.items():
        path = partial / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
        files[path.name] = {"sha256": _digest(path), "bytes": path.stat().st_size}
    manifest = {"format": FORMAT, "files": files, "facts": dict(facts)}
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
    (partial / MANIFEST).write_text(text + "\n")
    for path in (*partial.iterdir(), partial):
        _sync(path)
    _replace(partial, folder)
    if keep is not None:
        for old in list_checkpoints(folder.parent)[keep:]:
            if not is_spared(old.name):
                _remove(old, is_spared)
    return folder


def load_checkpoint(
    folder: Path, names: Sequence[str] | None = None, config_hash: str | None = None
) -> tuple[Parts, dict[str, Any]]:
    """The parts `names` (None reads all) and the facts.

    ValueError says which file is missing or damaged, or that the config is another one.
    """
    manifest = read_manifest(folder)
    facts = manifest["facts"]
    if config_hash is not None and facts.get("config_hash") != config_hash:
        raise ValueError(
            f"checkpoint {folder}: made under config {str(facts.get('config_hash'))[:12]}, this is "
            f"{config_hash[:12]}; model or sampler differ, use the run's own config.yaml"
        )
    known = [name.removesuffix(".safetensors") for name in manifest["files"]]
    parts = {
        name: _read_part(folder, name, manifest["files"], known)
        for name in (known if names is None else names)
    }
    return parts, facts


def _read_part(
    folder: Path, name: str, files: Mapping[str, Mapping[str, Any]], known: Sequence[str]
) -> dict[str, Tensor]:
    path = folder / f"{name}.safetensors"
    if path.name not in files:
        raise ValueError(f"checkpoint {folder}: no part {name!r}; it has {', '.join(known)}")
    remedy = "the file was damaged or exchanged after it was written; use another checkpoint"
    if not path.is_file():
        raise ValueError(f"checkpoint {folder}: {path.name} is missing; {remedy}")
    expected, got = files[path.name]["sha256"], _digest(path)
    if got != expected:
        raise ValueError(
            f"checkpoint {folder}: {path.name} ({path.stat().st_size} bytes, expected "
            f"{files[path.name]['bytes']}) has SHA-256 {got[:16]}, the manifest says "
            f"{expected[:16]}; {remedy}"
        )
    return load_file(path)


def _replace(partial: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one; only a step that is saved again takes this path.
    if folder.exists():
        _remove(folder)
    partial.rename(folder)
    _sync(folder.parent)


def _remove(folder: Path, is_spared: Callable[[str], bool] = lambda name: False) -> None:
    """Out of sight first, so that a half-deleted checkpoint never looks whole; and back again if it
    is spared since then."""
    hidden = _hidden(folder, "old")
    folder.rename(hidden)
    if is_spared(folder.name):
        hidden.rename(folder)
        return
    shutil.rmtree(hidden)


def _hidden(folder: Path, why: str) -> Path:
    return folder.with_name(f".{folder.name}.{why}-{secrets.token_hex(4)}")


def _clear_leftovers(checkpoints: Path) -> None:
    for why in ("partial", "old"):
        for path in checkpoints.glob(f".*.{why}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
