"""Weights on their way between workers: safetensors bytes with a version and two hashes.

The SHA-256 is of the bytes; the config hash says whether both sides run the same network. A worker
verifies both before it swaps a single tensor.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors.torch import load, save
from torch import Tensor


@dataclass(frozen=True)
class PublishedWeights:
    """One role's parameters at one version."""

    role: str
    """Whose they are, such as `generator`."""
    version: int
    """How many updates made them."""
    payload: bytes
    """safetensors."""
    sha256: str
    """Hex digest of the payload."""
    config_hash: str
    """Of the run that made them, see `services.config.config_hash`."""


def pack(
    role: str, version: int, tensors: Mapping[str, Tensor], config_hash: str
) -> PublishedWeights:
    """Publish CPU tensors, in the dtype they have."""
    payload = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return PublishedWeights(role, version, payload, _digest(payload), config_hash)


def unpack(published: PublishedWeights, role: str, config_hash: str) -> dict[str, Tensor]:
    """The tensors, once role, config and bytes are what they should be; else ValueError."""
    what = f"weights of {published.role!r}, version {published.version}"
    if published.role != role:
        raise ValueError(f"{what}: expected weights of {role!r}; load them into their own role")
    if published.config_hash != config_hash:
        raise ValueError(
            f"{what}: made under config {published.config_hash[:12]}, this worker runs "
            f"{config_hash[:12]}; model or sampler differ, start both from one config"
        )
    digest = _digest(published.payload)
    if digest != published.sha256:
        raise ValueError(
            f"{what}: {len(published.payload)} bytes with SHA-256 {digest[:12]}, published as "
            f"{published.sha256[:12]}; damaged on the way, publish them again"
        )
    return load(published.payload)


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
