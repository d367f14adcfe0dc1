"""Linear layers in a row without activations: what turns an embedding into one score.

The improved aesthetic predictor and ImageReward are 768-1024-128-64-16-1 of these (their dropout
rests at inference); LAION's first aesthetic predictor is a single one.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from services.reward.checkpoints import fill

_LAYER = re.compile(r"(?:layers\.(\d+)\.)?(weight|bias)")


def build_head(tensors: Mapping[str, Tensor], width: int, source: Path) -> nn.Sequential:
    """The head of `weight, bias` or `layers.N.weight, layers.N.bias`: (B, width) to (B, 1)."""
    names = {name: _LAYER.fullmatch(name) for name in tensors}
    unknown = [name for name, match in names.items() if match is None]
    order = sorted({int(match[1] or 0) for match in names.values() if match})
    if unknown or not order:
        raise ValueError(
            f"{source} is no head: its tensors are {', '.join(list(tensors)[:4]) or 'none'}, where "
            "`weight` and `bias`, or `layers.N.weight` and `layers.N.bias` are needed"
        )
    renamed = {
        f"{order.index(int(match[1] or 0))}.{match[2]}": tensors[name]
        for name, match in names.items()
        if match
    }
    sizes = [tuple(renamed[f"{i}.weight"].shape) for i in range(len(order))]
    head = nn.Sequential(*(nn.Linear(inputs, outputs) for outputs, inputs in sizes))
    if sizes[0][1] != width or sizes[-1][0] != 1:
        raise ValueError(
            f"{source} takes {sizes[0][1]} numbers and gives {sizes[-1][0]}; the embedding has "
            f"{width} and one score is needed, so head and backbone do not belong together"
        )
    fill(head, renamed, source)
    return head
