"""What a reward is, and how its answers become records.

A reward is a plain class: `version`, `requires` and `evaluate(batch)`. It answers with numbers or
`Verdict`s; anything that is not a finite number becomes a `failed` record, never a value.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tdm_core.types import ImageGroup, Prompt, RewardRecord

T = TypeVar("T")
FIELDS = ("prompt", "image", "metadata", "group")
MAX_REASON = 500
MAX_VERSION = 100


@dataclass(frozen=True)
class RewardInput:
    """One image to judge."""

    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, contiguous; the reward may keep it."""
    prompt: Prompt
    """Text and metadata that the image was made for."""
    group_id: int
    """Its group in the run."""
    sample: int
    """Its row in the group."""
    slot: int
    """Its place on the S axis of the `ImageGroup`."""


@dataclass(frozen=True)
class Verdict:
    """A value with what people want to know of it; None with a reason where there is no value."""

    value: float | None
    """The reward, or None when this image could not be judged."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components, for people."""
    reason: str = ""
    """A short explanation, or the error."""
    version: str = ""
    """Of what judged behind the reward, such as a server; the record has it after the reward's."""


Answer = float | Verdict


class PointwiseReward(Protocol):
    """Judges every image by itself."""

    version: str
    """Changes whenever the same image could get another value."""
    requires: Sequence[str]
    """What it reads, of `prompt`, `image`, `metadata`."""

    def evaluate(self, batch: list[RewardInput]) -> Sequence[Answer]:
        """One answer an image, in the same order."""
        ...


class GroupwiseReward(Protocol):
    """Sees whole groups: rankers, "best of group". `requires` includes `group`."""

    version: str
    """Changes whenever the same group could get other values."""
    requires: Sequence[str]
    """What it reads; includes `group`."""

    def evaluate(self, batch: list[list[RewardInput]]) -> Sequence[Sequence[Answer]]:
        """One list of answers a group, both in the same order; a group's images share the slot."""
        ...


Reward = PointwiseReward | GroupwiseReward


@runtime_checkable
class ChecksPrompts(Protocol):
    """A reward that can tell before the run whether it will be able to judge a prompt."""

    def check_prompt(self, prompt: Prompt) -> None:
        """Raise ValueError saying what the prompt lacks."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A reward that has something to load before it can judge: weights, an engine, a connection."""

    def prepare(self) -> None:
        """Called once where the reward will work; what it raises ends the run at its start."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """A reward that ends every batch by itself, with the answers that it has by then."""

    budget_s: float
    """Seconds that it takes for a batch, at most; below the reward's `deadline_s`."""


def is_groupwise(reward: Reward) -> bool:
    """Whether the reward sees whole groups."""
    return "group" in reward.requires


def units_of(group: ImageGroup) -> list[list[RewardInput]]:
    """The group's images, one list of its G samples for each slot."""
    images = group.images_GS3HW.cpu().permute(0, 1, 3, 4, 2).contiguous().numpy()
    assert images.dtype == np.uint8, images.dtype
    return [
        [
            RewardInput(images[sample, slot], group.prompt, group.group_id, sample, slot)
            for sample in range(images.shape[0])
        ]
        for slot in range(images.shape[1])
    ]


def together(units: Iterable[list[T]], size: int) -> Iterator[list[list[T]]]:
    """Units in batches of up to `size` images; a larger one comes alone, since none is cut."""
    batch: list[list[T]] = []
    for unit in units:
        if batch and sum(map(len, batch)) + len(unit) > size:
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def record_of(
    image: RewardInput, answer: Any, name: str, version: str, latency_s: float
) -> RewardRecord:
    """The record of one answer: `ready` with a finite value, else `failed` with the reason."""
    verdict = verdict_of(answer)
    return RewardRecord(
        group_id=image.group_id,
        sample=image.sample,
        slot=image.slot,
        reward=name,
        state="failed" if verdict.value is None else "ready",
        value=verdict.value,
        version=f"{version}:{verdict.version}" if verdict.version else version,
        parts=verdict.parts,
        reason=verdict.reason,
        latency_s=latency_s,
    )


def verdict_of(answer: Any) -> Verdict:
    """Any answer as a verdict with a finite float, or with None and the reason."""
    verdict = answer if isinstance(answer, Verdict) else Verdict(answer)
    value, reason = _finite(verdict)
    parts, reason = _finite_parts(verdict.parts), _writable(reason or "")[:MAX_REASON]
    return Verdict(value, parts, reason, _writable(verdict.version)[:MAX_VERSION])


def _writable(text: Any) -> str:
    """The text without half characters, which JSON can hold and no file."""
    return str(text).encode(errors="replace").decode()


def _finite(verdict: Verdict) -> tuple[float | None, str]:
    value = _plain(verdict.value)
    if value is None:
        return None, verdict.reason or "the reward gave no value"
    if not isinstance(value, Real):
        return None, f"the reward gave {value!r}, a {type(value).__name__}; a number is allowed"
    number = _float(value)
    if not math.isfinite(number):
        return None, f"the reward gave {number}; a finite number is allowed"
    return number, verdict.reason


def _finite_parts(parts: Any) -> dict[str, float]:
    # What is no finite number would not survive JSON, and parts are for people only.
    if not isinstance(parts, Mapping):
        return {}
    plain = {_writable(name): _plain(part) for name, part in parts.items()}
    numbers = {name: _float(part) for name, part in plain.items() if isinstance(part, Real)}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def _float(value: Any) -> float:
    """The nearest float; an infinity where a whole number is larger than any."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _plain(value: Any) -> Any:
    """A number out of a tensor or array without axes; anything else as it is."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        return value.item()
    return value
