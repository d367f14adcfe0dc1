"""What leaves each stage of the pipeline: one frozen type a stage, whole when it is made.

Shapes: G images of a prompt group, N rows of a batch of groups, K steps, C H W latent or pixel
axes, R rewards. Latents are float32. A row's group is its place in `group_ids`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from tdm_core.prompts import Prompt

Conditioning = Mapping[str, Tensor]
"""Named tensors that condition a denoiser, one row a sample (or one row to be repeated)."""

RewardState = Literal["ready", "pending", "failed", "expired"]


@dataclass(frozen=True)
class Trajectory:
    """The deterministic path of one prompt group."""

    boundaries_GKCHW: Tensor
    """(G, K+1, C, H, W) float: x at s_0 .. s_K."""
    sigmas: tuple[float, ...]
    """K+1 noise levels, falling to exactly 0."""


@dataclass(frozen=True)
class RolloutGroup:
    """What the generator's readers need of one rollout."""

    group_id: int
    """Unique in a run; also the key of the group's randomness."""
    prompt: Prompt
    """The prompt that all G samples share."""
    policy_version: int
    """Version of the generator that made it."""
    trajectory: Trajectory
    """Boundaries of all G samples."""
    conditioning: Conditioning
    """One row (leading axis 1), shared by the group."""

    @property
    def group_size(self) -> int:
        """G."""
        return self.trajectory.boundaries_GKCHW.shape[0]

    @property
    def num_bytes(self) -> int:
        """Memory of the tensors."""
        tensors = [self.trajectory.boundaries_GKCHW, *self.conditioning.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True)
class ImageGroup:
    """What a reward sees of one rollout."""

    group_id: int
    """As in the `RolloutGroup` made with it."""
    prompt: Prompt
    """The prompt that all G samples share."""
    policy_version: int
    """Version of the generator that made it."""
    images_GS3HW: Tensor
    """(G, S, 3, H, W) uint8. S is 1 (the final image), or K clean predictions for `gain`."""


@dataclass(frozen=True)
class PredictionImages:
    """What a group's first images were predicted to be on their way."""

    images_NK3HW: Tensor
    """(N, K-1, 3, H, W) uint8: the clean prediction of every step but the last, whose prediction
    is the final image. N may be 0."""
    sigmas: tuple[float, ...]
    """K+1 noise levels, falling to exactly 0."""


@dataclass(frozen=True)
class RewardRecord:
    """One reward's verdict on one image; a missing value is a state, never a number."""

    group_id: int
    """The group."""
    sample: int
    """Row in the group, 0 .. G-1."""
    slot: int
    """Index on the S axis of `ImageGroup`."""
    reward: str
    """Name of the reward in this run."""
    state: RewardState
    """`ready` has a finite value; the others have none."""
    value: float | None
    """The reward, finite; None unless ready."""
    version: str = ""
    """Version of the reward that judged."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components, for people."""
    reason: str = ""
    """A short explanation, or the error."""
    latency_s: float = 0.0
    """Seconds the verdict took."""
    revision: int = 0
    """Counts this reward's verdicts on the group: an older one never replaces a newer."""

    def __post_init__(self) -> None:
        ready = self.state == "ready"
        if ready != (self.value is not None):
            raise ValueError(
                f"reward {self.reward!r}: state {self.state!r} with value {self.value!r}; "
                "a ready record has a value and no other record has one"
            )


@dataclass(frozen=True)
class RewardedGroup:
    """A rollout whose rewards have arrived."""

    group: RolloutGroup
    """The rollout."""
    rewards_RGK: Tensor
    """(R, G, K) float64 per-step rewards; NaN where invalid."""
    valid_RGK: Tensor
    """(R, G, K) bool."""
    revision: int
    """Counts re-evaluations; a revision is trained on at most once."""
    weight: float = 1.0
    """How much it counts beside the other groups of its batch: less for people's old verdicts."""


@dataclass(frozen=True)
class FreshBatch:
    """Whole groups, concatenated, for the fake score and the generator."""

    boundaries_NKCHW: Tensor
    """(N, K+1, C, H, W) float."""
    sigmas: tuple[float, ...]
    """K+1 noise levels."""
    conditioning: Conditioning
    """N rows."""
    group_ids: tuple[int, ...]
    """The groups, in row order."""
    group_sizes: tuple[int, ...]
    """Rows of each group, in the same order."""
    policy_versions: tuple[int, ...]
    """Version that made each group."""


@dataclass(frozen=True)
class RewardedBatch:
    """Whole groups with their advantages, for the surrogate."""

    fresh: FreshBatch
    """The trajectories."""
    advantages_NK: Tensor
    """(N, K) float64, zero where invalid."""
    valid_NK: Tensor
    """(N, K) bool: the sample counts in its group's sum and size."""
    group_weights: tuple[float, ...]
    """How much each group counts in the surrogate's mean over groups, in the batch's order."""
    statistics: Mapping[str, float]
    """Reward means, spreads, zero-signal share and the like, for telemetry."""


def rows_of(batch: FreshBatch) -> Tensor:
    """(N,) int64: for each row, the position of its group in `batch.group_ids`."""
    sizes = torch.tensor(batch.group_sizes)
    return torch.repeat_interleave(torch.arange(len(batch.group_sizes)), sizes)
