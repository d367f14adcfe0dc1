"""How an evaluation's images are dealt out: parts that reward workers judge side by side.

Single images are numbered 0, 1, ...; groups likewise, and group i begins with image i. A part is as
many of them as `evaluation.batch_size` images make. Imports no torch: the controller asks too.
"""

from services.config import RunConfig


def parts_of_singles(config: RunConfig) -> list[range]:
    """Numbers of the images of each part."""
    evaluation = config.evaluation
    return _cut(evaluation.num_images, evaluation.batch_size)


def parts_of_groups(config: RunConfig) -> list[range]:
    """Numbers of the groups of each part; there is at least one group."""
    evaluation, size = config.evaluation, config.algorithm.group_size
    return _cut(max(evaluation.num_images // size, 1), max(evaluation.batch_size // size, 1))


def _cut(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]
