"""Which prompt a group gets: a seeded shuffle an epoch, as a function of the group's id alone.

So a run resumes from a group id, and the readable twin in examples/ walks as the cluster does.
"""

import hashlib
from functools import lru_cache


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
