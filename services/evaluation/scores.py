"""From reward records to a flat table of means; what is missing is counted, never averaged.

geneval, geneval/missing                        the reward's own value
geneval/std_error                               of that mean, from two groups on
geneval/strict, geneval/soft                    parts that every ready record has
geneval/strict/counting ...                     the same, by the prompt's `tag`
geneval/strict/tag_mean                         mean over tags, GenEval's benchmark score
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from tdm_core.types import Prompt, RewardRecord


def score_table(
    reward: str, records: Sequence[RewardRecord], prompts: Mapping[int, Prompt], lost: int = 0
) -> dict[str, float]:
    """Means of one reward's records; `prompts` by group id, their metadata may have a `tag`.

    `lost` images have no record; they are missing too.
    """
    ready = [record for record in records if record.state == "ready"]
    table = {f"{reward}/missing": float(lost + len(records) - len(ready))}
    if not ready:
        return table
    tags = [prompts[record.group_id].tag for record in ready]
    values = [_value(record) for record in ready]
    table |= _means(reward, values, tags)
    by_group: dict[int, list[float]] = {}
    for record in ready:
        by_group.setdefault(record.group_id, []).append(_value(record))
    if len(by_group) > 1:  # images of one prompt are no independent witnesses
        means = [fmean(group) for group in by_group.values()]
        table[f"{reward}/std_error"] = stdev(means) / math.sqrt(len(means))
    for part in sorted(set.intersection(*(set(record.parts) for record in ready))):
        table |= _means(f"{reward}/{part}", [record.parts[part] for record in ready], tags)
    return table


def _means(name: str, values: Sequence[float], tags: Sequence[str | None]) -> dict[str, float]:
    means = {name: fmean(values)}
    by_tag: dict[str, list[float]] = {}
    for tag, value in zip(tags, values, strict=True):
        if tag is not None:
            by_tag.setdefault(tag, []).append(value)
    if by_tag:
        means |= {f"{name}/{tag}": fmean(group) for tag, group in by_tag.items()}
        means[f"{name}/tag_mean"] = fmean(fmean(group) for group in by_tag.values())
    return means


def _value(record: RewardRecord) -> float:
    assert record.value is not None, "a ready record has a value"
    return record.value
