"""A learner's state as one flat mapping "part/name" -> tensor; a part is a file of a checkpoint."""

from collections.abc import Mapping

from torch import Tensor


def part(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` as the part `name` of a state."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def read_part(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `part` was given; empty for a part that the state does not have."""
    prefix = f"{name}/"
    return {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
