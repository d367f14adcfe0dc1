"""Every number of the algorithm, as frozen dataclasses that import nothing heavy.

`AlgorithmConfig()` is this project's default; `parity(task)` is the authors' released setting. Each
field's docstring gives its unit, its range and the place in docs/algorithm.md it belongs to.
Cross-field rules are checked once, in `__post_init__`, so no worker ever starts on an impossible
setting.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

Solver = Literal["euler", "dpmpp_2m"]
Grid = Literal["nominal", "discrete"]
UpdateOrder = Literal["gauss_seidel", "jacobi"]
FakeTarget = Literal["clean_pred", "conditional_velocity"]
Reference = Literal["frozen", "ema"]
TauSharing = Literal["per_sample", "per_slot"]
ThresholdScale = Literal["relative", "absolute"]
PerStepReward = Literal["terminal", "gain"]
Normaliser = Literal["rolling_std", "batch_std"]
Combination = Literal["weighted_sum", "per_reward_advantage"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class SamplerConfig:
    """The few-step sampler (algorithm.md 1)."""

    num_steps: int = 4
    """K, network evaluations an image."""
    shift: float = 3.0
    """g of s = g u / (1 + (g-1) u); 1 leaves the grid uniform."""
    solver: Solver = "euler"
    """Rollout and replay always use the same solver."""
    grid: Grid = "nominal"
    """`nominal` starts at s = 1; `discrete` at the first sigma of a 1000-step scheduler."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.num_steps <= 49,
            f"sampler.num_steps={self.num_steps}: allowed 1 to 49, past that the first boundary "
            "leaves no room for tau below 1; use fewer steps",
        )
        _require(self.shift > 0, f"sampler.shift={self.shift} must be positive; 3.0 is usual")


@dataclass(frozen=True)
class SurrogateConfig:
    """The surrogate reward's group preference loss (algorithm.md 3)."""

    beta: float = 1.0
    """Sharpness of sigmoid(S_g); it never scales the gradient."""
    tau_min: float = 0.55
    """Lowest noise level (sigma) at which the surrogate is trained."""
    reference: Reference = "frozen"
    """What D is measured against: the frozen teacher, or the surrogate's EMA."""
    ratio_clip: float = 1e-2
    """c of rule (a): a sample is frozen once exp(Dbar - D) has moved by more than c. 0 is off."""
    gate_threshold: float = 0.5
    """Rule (b): gate when the squared distance to the teacher, M, exceeds this. 0 is off."""
    threshold_scale: ThresholdScale = "relative"
    """`relative` divides D, Dbar, Dref and M by a running mean of the teacher's squared velocity
    before rules (a) and (b); `absolute` leaves them as they are."""
    regulariser: float = 1e-3
    """Weight of M = mean (v_phi - v_psi)^2 in the loss."""
    step_weight: bool = True
    """Weigh slot j by (j+1)/K (`tweight`)."""
    ema_start: float = 1e-3
    """Retained fraction of the surrogate's EMA at step 0."""
    ema_slope: float = 1e-3
    """Added to the retained fraction a step."""
    ema_max: float = 0.3
    """Cap of the retained fraction."""
    lr: float = 1e-4
    """AdamW learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW betas."""

    def __post_init__(self) -> None:
        _require(self.beta > 0, f"surrogate.beta={self.beta} must be positive")
        _require(
            0 <= self.tau_min < 0.98,
            f"surrogate.tau_min={self.tau_min}: allowed 0 to 0.98, a noise level below 1",
        )
        _require(self.ratio_clip >= 0, f"surrogate.ratio_clip={self.ratio_clip} must be >= 0")
        _require(self.gate_threshold >= 0, f"surrogate.gate_threshold={self.gate_threshold} < 0")


@dataclass(frozen=True)
class FakeScoreConfig:
    """The fake score, which follows the generator's own distribution (algorithm.md 2.3)."""

    target: FakeTarget = "clean_pred"
    """`clean_pred`: (x_tau - x0hat)/tau; `conditional_velocity`: the exact target."""
    teacher_regulariser: float = 0.02
    """Weight of mean (v_f - v_psi)^2."""
    max_inverse_variance: float = 10.0
    """Clamp of 1/b^2 in the exact target's weight clamp(1/b^2, 0, max) b^2."""
    lr: float = 2e-4
    """AdamW learning rate."""
    betas: tuple[float, float] = (0.0, 0.999)
    """AdamW betas."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator's loss (algorithm.md 4)."""

    teacher_guidance: float = 4.5
    """Guidance scale of the teacher's direction and normaliser; its coefficient is scale - 1."""
    reward_guidance: float = 2.5
    """Guidance scale of the surrogate in the reward direction (`rl_cfg`)."""
    distillation_weight: float = 0.3
    """om: the guidance term's weight; the reward term has 1 - om."""
    reward_scale: float = 1.0
    """Extra factor of the reward term; 0 trains without reward (the control experiment)."""
    tau_min: float = 0.25
    """Lowest noise level (sigma) at which the generator queries the surrogate."""
    truncation: int | None = None
    """Slots at or past this one get no reward term; None is K, every slot has it."""
    pseudo_huber: float = 0.0
    """c of sqrt(d^2 + c^2) - c; 0 is the squared error of the released runs."""
    min_normaliser: float = 1e-6
    """Floor of wf and wd."""
    pure_reward_direction: bool = False
    """Ablation: guide both sides of the reward direction alike."""
    ema_max: float = 0.97
    """Cap of the generator EMA's retained fraction min((1+t)/(ramp+t), cap)."""
    ema_ramp: int = 10
    """ramp: the average spans about t/(ramp-1) of the first t updates, until the cap."""
    lr: float = 3e-5
    """AdamW learning rate."""
    betas: tuple[float, float] = (0.0, 0.999)
    """AdamW betas."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.distillation_weight <= 1,
            f"generator.distillation_weight={self.distillation_weight}: allowed 0 to 1",
        )
        _require(
            0 <= self.tau_min < 0.98,
            f"generator.tau_min={self.tau_min}: allowed 0 to 0.98, a noise level below 1",
        )
        _require(self.ema_ramp >= 1, f"generator.ema_ramp={self.ema_ramp}: at least 1, no average")


@dataclass(frozen=True)
class AdvantageConfig:
    """From rewards to group advantages (algorithm.md 3, rewards.md)."""

    per_step: PerStepReward = "terminal"
    """`terminal`: each column is the final reward; `gain`: what each step's prediction adds."""
    normaliser: Normaliser = "rolling_std"
    """`batch_std` over the drawn batch, or `rolling_std` over recent groups."""
    combination: Combination = "weighted_sum"
    """How several rewards become one."""
    rolling_groups: int = 64
    """Groups in the rolling window."""
    std_floor: float = 1e-4
    """Added to the batch std; a floor under the rolling std."""
    clip: float = 5.0
    """Advantages are clipped to +-clip."""
    recentre: bool = True
    """Subtract the group mean again after the clip; the authors do not."""

    def __post_init__(self) -> None:
        _require(
            self.rolling_groups >= 1,
            f"advantages.rolling_groups={self.rolling_groups}: the window needs at least 1 group",
        )
        _require(self.std_floor > 0, f"advantages.std_floor={self.std_floor} must be positive")
        _require(self.clip > 0, f"advantages.clip={self.clip} must be positive")


@dataclass(frozen=True)
class ReplayConfig:
    """The two-reader buffer (architecture.md 3)."""

    max_staleness_generator: int = 1
    """Policy versions a group may be old when the generator draws it; 0 is on-policy."""
    max_staleness_surrogate: int = 8
    """Policy versions a group may be old when the surrogate draws it; 0 is on-policy."""
    max_reuse: int = 1
    """Times the generator may draw one group."""
    capacity_groups: int = 256
    """Groups held at most; the oldest leave first."""
    label_half_life: float = 64.0
    """Policy versions after which a group that people labelled weighs half in the surrogate."""
    min_label_weight: float = 0.1
    """What such a group weighs at least."""
    max_staleness_labelled: int | None = None
    """Policy versions such a group may be old when the surrogate draws it; None is any age."""

    def __post_init__(self) -> None:
        _require(
            self.label_half_life > 0,
            f"replay.label_half_life={self.label_half_life}: a positive number of versions",
        )
        _require(
            0 < self.min_label_weight <= 1,
            f"replay.min_label_weight={self.min_label_weight}: above 0 and at most 1",
        )
        labelled = self.max_staleness_labelled
        _require(
            labelled is None or labelled >= self.max_staleness_surrogate,
            f"replay.max_staleness_labelled={labelled} is below max_staleness_surrogate="
            f"{self.max_staleness_surrogate}; labelled groups may be older, never younger only",
        )
        _require(self.max_reuse >= 1, f"replay.max_reuse={self.max_reuse}: at least 1")
        _require(self.max_staleness_generator >= 0, "replay.max_staleness_generator must be >= 0")
        _require(
            self.max_staleness_surrogate >= self.max_staleness_generator,
            f"replay.max_staleness_surrogate={self.max_staleness_surrogate} is below "
            f"max_staleness_generator={self.max_staleness_generator}; the surrogate may be the "
            "staler reader, never the younger one",
        )


@dataclass(frozen=True)
class AlgorithmConfig:
    """One TDM-R1 run."""

    num_groups: int = 6
    """Prompt groups an iteration."""
    group_size: int = 16
    """G, images of one prompt."""
    groups_per_microbatch: int | None = None
    """Whole groups a forward pass holds; None is all of them."""
    slots_per_update: int = 2
    """M of K slots drawn without replacement for each update."""
    update_order: UpdateOrder = "gauss_seidel"
    """`gauss_seidel`: the generator sees the updated nets; `jacobi`: those from before."""
    tau_sharing: TauSharing = "per_sample"
    """Fake score and KL: a tau a sample, or one scalar a slot."""
    tau_offset: float = 0.02
    """Margin of tau above the boundary, in the source coordinate u."""
    max_grad_norm: float = 1.0
    """Each role's own gradient norm is clipped to this."""
    weight_decay: float = 1e-4
    """AdamW, every role."""
    adam_eps: float = 1e-8
    """AdamW, every role."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The few-step sampler."""
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    """The surrogate reward."""
    fake_score: FakeScoreConfig = field(default_factory=FakeScoreConfig)
    """The fake score."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """The generator."""
    advantages: AdvantageConfig = field(default_factory=AdvantageConfig)
    """Rewards to advantages."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """The buffer."""

    def __post_init__(self) -> None:
        _require(
            self.group_size >= 2,
            f"group_size={self.group_size}: a preference needs at least 2 images of a prompt",
        )
        _require(self.num_groups >= 1, f"num_groups={self.num_groups}: at least 1")
        per = self.groups_per_microbatch
        _require(
            per is None or (1 <= per <= self.num_groups and self.num_groups % per == 0),
            f"groups_per_microbatch={per} does not divide num_groups={self.num_groups}; "
            "use a divisor, groups are never split over microbatches",
        )
        _require(
            1 <= self.slots_per_update <= self.sampler.num_steps,
            f"slots_per_update={self.slots_per_update}: allowed 1 to "
            f"sampler.num_steps={self.sampler.num_steps}",
        )
        _require(
            0.001 <= self.tau_offset <= 0.5,
            f"tau_offset={self.tau_offset}: allowed 0.001 to 0.5; tau must stay clear of the "
            "boundary, where the exact velocity diverges",
        )
        _require(
            self.replay.capacity_groups >= self.num_groups,
            f"replay.capacity_groups={self.replay.capacity_groups} is below num_groups="
            f"{self.num_groups}, so no batch would ever be drawn; use at least {self.num_groups}",
        )
        truncation = self.generator.truncation
        _require(
            truncation is None or 0 <= truncation <= self.sampler.num_steps,
            f"generator.truncation={truncation}: allowed 0 to {self.sampler.num_steps}",
        )

    @property
    def on_policy(self) -> bool:
        """Whether the generator may only train on what it just made."""
        return self.replay.max_staleness_generator == 0

    @property
    def truncation(self) -> int:
        """First slot without a reward term."""
        if self.generator.truncation is None:
            return self.sampler.num_steps
        return self.generator.truncation


def parity(task: Literal["ocr", "geneval", "image_reward", "hps"]) -> AlgorithmConfig:
    """The authors' released hyperparameters and laws for SD3.5-M (algorithm.md 6 and 12).

    It never reproduces the faults of the released script (gradients left unsynchronised, one clip
    over all roles, a replay that disagrees with the sampler).
    """
    rows = {
        # groups, per microbatch, beta, clip, query tau, train tau, rl_cfg, truncation
        "ocr": (48, 4, 10.0, 1e-3, 0.30, 0.30, 4.5, 4),
        "geneval": (48, 2, 1.0, 1e-3, 0.25, 0.55, 2.5, 4),
        "image_reward": (24, 4, 1.0, 2e-3, 0.40, 0.55, 3.5, 2),
        "hps": (24, 4, 10.0, 2e-3, 0.40, 0.55, 3.5, 2),
    }
    if task not in rows:
        raise ValueError(f"parity task {task!r}: allowed are {', '.join(rows)}")
    groups, per, beta, clip, query, train, guidance, truncation = rows[task]
    return AlgorithmConfig(
        num_groups=groups,
        group_size=24,
        groups_per_microbatch=per,
        update_order="jacobi",
        tau_sharing="per_slot",
        sampler=SamplerConfig(solver="dpmpp_2m", grid="discrete"),
        surrogate=SurrogateConfig(
            beta=beta,
            tau_min=train,
            ratio_clip=clip,
            gate_threshold=0.05,
            threshold_scale="absolute",
            lr=3e-4,
        ),
        fake_score=FakeScoreConfig(lr=3e-4),
        generator=GeneratorConfig(
            reward_guidance=guidance,
            tau_min=query,
            truncation=truncation,
            ema_max=0.9,
            lr=7.5e-5,
        ),
        advantages=AdvantageConfig(normaliser="batch_std", recentre=False),
        replay=ReplayConfig(max_staleness_generator=0, max_staleness_surrogate=0),
    )


def without_reward(config: AlgorithmConfig) -> AlgorithmConfig:
    """The control run: the same training with the reward term taken out."""
    return replace(config, generator=replace(config.generator, reward_scale=0.0))
