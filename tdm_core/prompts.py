"""Prompts, and which of them a group gets; standard library only.

The order is a seeded shuffle an epoch, as a function of the group's id alone: a run resumes from a
group id, and the readable twin in examples/ walks as the cluster does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """One prompt of a source."""

    prompt_id: str
    """Its place in the source, such as `train.jsonl:17`."""
    text: str
    """What the text encoder reads."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What a reward may need besides the text (GenEval's clauses, a target string)."""

    @property
    def tag(self) -> str | None:
        """Its category, such as `counting`; None where the source names none."""
        return self.metadata.get("tag") or None


def prompt_index(seed: int, group_id: int, num_prompts: int) -> int:
    """Place of the group's prompt, 0 .. num_prompts - 1; every epoch visits each prompt once."""
    epoch, place = divmod(group_id, num_prompts)
    return _epoch_order(seed, epoch, num_prompts)[place]


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, num_prompts: int) -> tuple[int, ...]:
    # Sorting by keyed hashes, not random.shuffle: its result may change with Python's version.
    def key(place: int) -> bytes:
        text = f"{seed}:prompts:{epoch}:{place}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return tuple(sorted(range(num_prompts), key=key))
