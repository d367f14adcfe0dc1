"""Does the surrogate order a group's images as their rewards do, after each denoising step?

With its implicit rewards r_i = Dref_i - D_i and the advantages A_i (algorithm.md 3) of group g at
step j, over its valid images:

    agreement_j = P(r_i > r_k | A_i > A_k), equal r count half; over the pairs of all groups
    margin_j    = mean_g (1/G) sum_i A_i r_i = -mean_g S_g / beta, which learning makes grow
Within a group alone, whose images share tau and noise. 1 is the rewards' own order, 0.5 chance;
1 - agreement is the gap between the two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def surrogate_agreement(
    own_NK: Tensor, advantages_NK: Tensor, valid_NK: Tensor, group_sizes: Sequence[int]
) -> dict[str, float]:
    """`surrogate/agreement/step_j` and `surrogate/margin/step_j`, j from 0.

    `own_NK` (N, K) are the implicit rewards, NaN where the surrogate was not asked; `advantages_NK`
    and the bool `valid_NK` (N, K) are the batch's, whose rows are whole groups of `group_sizes`. A
    step at which no group has two images of different advantage is not told.
    """
    found: dict[str, float] = {}
    told_NK = valid_NK & own_NK.isfinite()
    all_rows = torch.arange(len(own_NK)).split(list(group_sizes))
    for step in range(own_NK.shape[1]):
        kept = [rows[told_NK[rows, step]] for rows in all_rows]
        groups = [(own_NK[rows, step], advantages_NK[rows, step]) for rows in kept]
        telling = [(own, advantages) for own, advantages in groups if len(advantages.unique()) > 1]
        if telling:
            right, pairs = map(sum, zip(*(_pairs(*group) for group in telling), strict=True))
            margins = [float((own * advantages).mean()) for own, advantages in telling]
            found[f"surrogate/agreement/step_{step}"] = right / pairs
            found[f"surrogate/margin/step_{step}"] = sum(margins) / len(margins)
    return found


def _pairs(own_G: Tensor, advantages_G: Tensor) -> tuple[float, float]:
    """Pairs that the surrogate orders right, and pairs."""
    better = advantages_G[:, None] > advantages_G
    right = torch.sign(own_G[:, None] - own_G)[better]
    return float((right + 1).sum() / 2), float(better.sum())
