"""Keyed randomness: every draw is a function of (seed, stream, keys), never of a global state.

So the order in which asynchronous workers run changes no number, and a rank can draw any other
rank's noise.
"""

import hashlib

import torch
from torch import Tensor


def rng_for(seed: int, stream: str, *keys: int) -> torch.Generator:
    """A CPU random source keyed by `seed`, the name of its use, and any whole numbers."""
    text = ":".join([str(seed), stream, *(str(int(key)) for key in keys)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    rng = torch.Generator(device="cpu")
    rng.manual_seed(int.from_bytes(digest, "little") >> 1)
    return rng


def normal(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise of `shape`, drawn on the CPU, in `like`'s dtype and device.

    Drawn in float64 only where `like` is float64, so a device never changes the numbers.
    """
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.randn(shape, generator=rng, dtype=dtype).to(like)
