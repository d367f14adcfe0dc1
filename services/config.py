"""The one typed tree that a run is made of, and the only way to load it.

YAML, then `key.subkey=value` overrides, over the defaults below; `preset` goes beneath the file's
own `algorithm` section. Every check that needs no worker happens here, before any worker starts.
Relative paths, in files and overrides alike, start at the current directory; `bundled:` starts at
the tiny worlds shipped with the package (`bundled:teacher`, `bundled:words/prompts/train.jsonl`).
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from services.config_keys import Tree, apply_override, check_keys, merged, readable
from tdm_core.config import AlgorithmConfig, parity

Preset = Literal["default", "parity_ocr", "parity_geneval", "parity_image_reward", "parity_hps"]
Role = Literal["teacher", "generator", "fake_score", "surrogate", "surrogate_ema"]

BUNDLED = Path(__file__).parent / "demo"
BUNDLED_MODELS = ("teacher", "student")
DEMOS = {"stickers": "bundled:demo.yaml", "words": "bundled:words/demo_ocr.yaml"}
"""The bundled worlds, each with the config that trains it."""
REWARD_KINDS = (
    "geneval",
    "ocr",
    "jpeg_compressibility",
    "jpeg_incompressibility",
    "preference",
    "vlm_judge",
    "vlm_judge_local",
    "http",
    "ranked",
    "human",
)
ROLLOUT = "rollout"
"""The pool that is no reward's; the others are called as their rewards."""
_PYTHON_REWARD = re.compile(r"python:[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


Side = Annotated[int, Field(ge=8, multiple_of=8)]


class Section(BaseModel):
    """A frozen part of the tree that takes no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RunSection(Section):
    """The run itself."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Start of the run's id; None takes the config file's name."""
    dir: Path = Path("runs")
    """Folder that holds the run folders; on a cluster, storage that every node sees."""
    seed: int = Field(default=0, ge=0)
    """Key of all randomness."""
    iterations: int = Field(default=200, ge=0)
    """Generator updates."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Stop cleanly after this many seconds of training; None never does."""


class ModelConfig(Section):
    """The networks."""

    family: Literal["sd3", "toy"]
    """Which file of services/models reads it."""
    teacher: str
    """Folder in diffusers' format, a hub name, or `toy`."""
    generator: str | None = None
    """Few-step start of the generator: a transformer folder or a LoRA file; None is the teacher."""
    roles: Literal["lora", "full"] = "lora"
    """Roles as adapters on one frozen backbone, or as full copies of a small network."""
    lora_rank: int = Field(default=32, ge=1)
    """Rank of every adapter."""
    lora_alpha: int = Field(default=64, ge=1)
    """Adapters are scaled by alpha / rank."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Backbone and autocast; trained parameters are float32 (float64 for the toy world)."""
    max_sequence_length: int = Field(default=256, ge=0)
    """Tokens of the long (T5) encoder; 0 goes without it."""
    resolution: Side | tuple[Side, Side] | None = None
    """Pixels of a square image's side, or [height, width]; None is the model's own, square."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks live; `auto` is a GPU where the process has one."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels; None is the model's own."""
        asked = self.resolution
        return (asked, asked) if isinstance(asked, int) else asked


class PromptsConfig(Section):
    """JSON lines (text and metadata) or plain text, one prompt a line."""

    train: Path
    """Prompts that rollouts draw from."""
    balance_by: str | None = None
    """Metadata key whose values are drawn equally often, such as `tag`; None draws evenly."""
    heldout: Path | None = None
    """Prompts that only the evaluator sees."""


class HumanOptions(Section):
    """Options of a reward of kind `human`: whom to ask about what, and who waits for the answer."""

    url: str = Field(pattern=r"^https?://[^/@\s]+/?$")
    """The label service, such as http://127.0.0.1:8321."""
    key_env: str = "TDMR1_LABELS_KEY"
    """Name of the environment variable that holds a service key, where the workers run."""
    question: str = "like"
    """Id of the question that people answer."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the groups that people are asked about; the freshest, then those whose automatic
    rewards differ most."""
    max_open_groups: int = Field(default=64, ge=1)
    """Groups with people at once."""
    groups_per_hour: float | None = Field(default=None, gt=0)
    """What people's time is worth; None is no bound."""
    max_candidate_age: int = Field(default=1, ge=0)
    """Policy versions after which a group that could not be sent is let go."""
    overlap: int | None = Field(default=None, ge=1, le=20)
    """People who label a group; None leaves it to the service."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Of this run's groups among those of others."""
    wait: Literal["never", "up_to_s", "block"] = "never"
    """Whether a group waits for its labels before the surrogate trains on its other rewards."""
    wait_s: float = Field(default=60, gt=0)
    """How long it does with `up_to_s`."""
    deadline_s: float = Field(default=600, gt=0)
    """Seconds until people's answer is no longer waited for by anybody."""
    late_labels: Literal["reward_model_only", "revise"] = "reward_model_only"
    """Whether groups are kept for verdicts that change after they were trained on."""
    poll_s: float = Field(default=1.0, gt=0)
    """Seconds between looks for answers."""
    visibility_s: int = Field(default=60, ge=1, le=43200)
    """Seconds after which an answer that was lost on its way comes again."""
    std_floor: float = Field(default=0.1, gt=0)
    """What the spread of posterior means is taken for at least: they differ by chance, too."""


class RewardConfig(Section):
    """One reward and its pool of workers."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """Its name in this run's metrics; unique."""
    kind: str
    """A built-in reward, or `python:module:Class`."""
    weight: float = 1.0
    """Factor in the weighted sum; negative punishes."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the reward."""
    num_workers: int = Field(default=1, ge=1)
    """Processes that evaluate it; where max_workers allows more, those that are always there."""
    max_workers: int | None = Field(default=None, ge=1)
    """Most processes while the queue is long, on Ray; None keeps num_workers."""
    scale_up_after_s: float = Field(default=2, ge=0)
    """Seconds that every worker has had another batch waiting, until one more is started."""
    scale_down_after_s: float = Field(default=30, ge=0)
    """Seconds that nothing has waited and a worker has idled, until one is ended."""
    num_cpus: float = Field(default=1, ge=0)
    """CPUs a worker reserves."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs a worker reserves."""
    batch_size: int = Field(default=64, ge=1)
    """Images a call of the reward, at most; a batch holds whole groups, of several prompts."""
    batch_wait_s: float = Field(default=0, ge=0)
    """Seconds that a group waits for others to fill its batch (async); 0 takes what is there."""
    queue_deadline_s: float = Field(default=600, gt=0)
    """Seconds until a group that no worker was free for is let go (async)."""
    deadline_s: float = Field(default=60, gt=0)
    """Seconds until an unanswered batch is given up, its retries included."""
    load_deadline_s: float = Field(default=600, gt=0)
    """Seconds that a reward may take to load again, once a call of it was given up."""
    retries: int = Field(default=2, ge=0)
    """Further attempts after a failed call."""
    backoff_s: float = Field(default=0.25, ge=0)
    """Seconds before the first further attempt; the pause doubles each time, up to 10."""
    on_failure: Literal["drop_sample", "drop_group", "stop_run"] = "drop_sample"
    """What a failed image costs."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        _require(
            kind in REWARD_KINDS or _PYTHON_REWARD.fullmatch(kind) is not None,
            f"unknown reward kind {kind!r}; allowed: {', '.join(REWARD_KINDS)}, "
            "or your own as python:module:Class",
        )
        return kind

    @model_validator(mode="after")
    def _readable_options(self) -> "RewardConfig":
        if self.kind == "human":
            check_keys(HumanOptions, self.options, f"reward {self.name!r}: options")
            try:
                HumanOptions.model_validate(self.options)
            except ValidationError as error:
                raise ValueError(readable(error, f"reward {self.name!r}: options")) from None
            _require(
                self.num_workers == 1,
                f"reward {self.name!r}: num_workers={self.num_workers}; kind human has 1, which "
                "only passes groups on: the people are at the label service",
            )
        _require(
            self.batch_wait_s < self.queue_deadline_s,
            f"reward {self.name!r}: batch_wait_s={self.batch_wait_s:g} is not below "
            f"queue_deadline_s={self.queue_deadline_s:g}, so a group that waits for others would "
            "be let go; lower batch_wait_s or raise queue_deadline_s",
        )
        most = self.num_workers if self.max_workers is None else self.max_workers
        _require(
            self.num_workers <= most and (self.kind != "human" or most == 1),
            f"reward {self.name!r}: max_workers={most} with num_workers={self.num_workers}; it is "
            "at least as many, and 1 for kind human",
        )
        return self

    @property
    def human(self) -> HumanOptions | None:
        """Its options where it is people who judge."""
        return HumanOptions.model_validate(self.options) if self.kind == "human" else None

    @field_validator("weight")
    @classmethod
    def _useful_weight(cls, weight: float) -> float:
        _require(
            math.isfinite(weight) and weight != 0,
            f"weight {weight}: allowed is any finite number but 0; remove the reward instead",
        )
        return weight


class GpusConfig(Section):
    """GPUs a process of each kind reserves; fractions share one."""

    rollout: float = Field(default=0, ge=0)
    """Each rollout worker."""
    surrogate: float = Field(default=0, ge=0)
    """Each rank of the surrogate learner."""
    generator: float = Field(default=0, ge=0)
    """Each rank of the generator learner."""
    evaluator: float = Field(default=0, ge=0)
    """The evaluator."""


class ClusterConfig(Section):
    """Where the workers run."""

    runtime: Literal["ray", "local"] = "ray"
    """Ray actors, or threads of this process."""
    placement: Literal["split", "colocated"] = "split"
    """Every role its own process, or one process and one backbone for all of them."""
    address: str | None = None
    """Ray cluster to join; None joins the job's own, or starts one on this machine."""
    num_rollout_workers: int = Field(default=1, ge=1)
    """Processes that generate; where max_rollout_workers allows more, those to begin with."""
    max_rollout_workers: int | None = Field(default=None, ge=1)
    """Most that `tdm-r1 scale` may make of them, on Ray; None is num_rollout_workers."""
    rollout_groups: int = Field(default=2, ge=1)
    """Prompt groups one generate call makes."""
    max_groups_in_flight: int = Field(default=12, ge=1)
    """Groups being generated or waiting for the learners, at most (async)."""
    generator_ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks of the generator learner."""
    surrogate_ranks: int = Field(default=1, ge=1)
    """Data-parallel ranks of the surrogate learner."""
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    """What steps the generator learner's two roles."""
    zero_stage: Literal[0, 1, 2] = 0
    """DeepSpeed's ZeRO stage."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU threads a process computes with; more than the cores make it slower, not faster."""
    gpus: GpusConfig = Field(default_factory=GpusConfig)
    """GPU reservations."""
    heartbeat_s: float = Field(default=30, gt=0)
    """Seconds in which a dead worker is noticed, and between reports of a long wait."""
    deadline_s: float = Field(default=3600, gt=0)
    """Seconds until a wait for a worker ends the run, saying what it waited for."""
    max_restarts: int = Field(default=3, ge=0)
    """Restarts of one worker before the run ends; see docs/rewards.md for which of them count."""

    @property
    def most_rollout_workers(self) -> int:
        """Processes that may generate at once."""
        return self.max_rollout_workers or self.num_rollout_workers


class EvaluationConfig(Section):
    """Held-out images, scored by the run's rewards."""

    every: int = Field(default=0, ge=0)
    """Iterations between evaluations; 0 evaluates at the begin and the end only."""
    num_images: int = Field(default=0, ge=0)
    """Images an evaluation; 0 goes without evaluations. A reward that compares the images of a
    group gets as many groups of algorithm.group_size as that makes, at least one."""
    seed: int = Field(default=0, ge=0)
    """Key of the evaluation's noise, the same at every evaluation."""
    batch_size: int = Field(default=64, ge=1)
    """Images a forward pass."""
    num_stored: int = Field(default=16, ge=0)
    """Of these images, how many are stored, with what the rewards said of them."""
    teacher_steps: int = Field(default=20, ge=1)
    """Steps of the teacher's sampler."""
    teacher_guidance: float = Field(default=3.0, ge=0)
    """The teacher's guidance scale; 1 is none."""
    score_teacher: bool = False
    """Evaluate the teacher once at the begin."""
    rewards: list[RewardConfig] = Field(default_factory=list)
    """More judges of held-out images, which nothing is trained on; a negative weight says that
    lower is better."""
    alert_sigmas: float = Field(default=2.0, gt=0)
    """Standard errors by which a trained reward must rise and one of these fall for an alert."""
    alert_evaluations: int = Field(default=2, ge=1)
    """Evaluations in a row in which they must."""
    alert_false_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of runs in which rewards that only scatter raise an alert, at most; the more
    evaluations a run makes, the further one of these must fall."""


class CheckpointConfig(Section):
    """When the roles are written to disk."""

    every: int = Field(default=0, ge=0)
    """Iterations between checkpoints; 0 writes one at the end."""
    keep: int = Field(default=3, ge=1)
    """Newest checkpoints that stay."""


class RetentionConfig(Section):
    """Which stored images of rollouts a run keeps; those of evaluations and those that people were
    asked about stay."""

    last_iterations: int | None = Field(default=None, ge=1)
    """Iterations, the newest one included, whose images are kept; None keeps them all."""
    max_bytes: int | None = Field(default=None, ge=1)
    """Bytes of these images at most: the oldest groups go, the newest one never; None is no
    bound."""

    def __str__(self) -> str:
        given = [f"{key}={value}" for key, value in self if value is not None]
        return ", ".join(given) or "all are kept"

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever removed."""
        return self.last_iterations is None and self.max_bytes is None


class TelemetryConfig(Section):
    """What is written beside metrics.jsonl."""

    tensorboard: bool = False
    """Event files in the run folder (extra `tensorboard`)."""
    wandb: bool = False
    """Weights & Biases (extra `wandb`)."""
    images_every: int = Field(default=10, ge=0)
    """Iterations between those whose groups' images are stored; 0 stores none."""
    images_per_group: int = Field(default=4, ge=1)
    """Images stored of a group."""
    predictions_per_group: int = Field(default=4, ge=0)
    """Of these, images whose clean prediction after every denoising step is stored too: each costs
    num_steps - 1 more decodings and files."""
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    """Which of them are removed."""


class RunConfig(Section):
    """One run, whole."""

    run: RunSection = Field(default_factory=RunSection)
    """The run itself."""
    preset: Preset = "default"
    """Starting values of `algorithm`: this project's, or the authors' for one task."""
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig)
    """Every number of the algorithm."""
    model: ModelConfig
    """The networks."""
    prompts: PromptsConfig
    """What is drawn."""
    rewards: list[RewardConfig] = Field(min_length=1)
    """What is rewarded."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig)
    """Where it runs."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How it is judged."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """What is kept."""
    telemetry: TelemetryConfig = Field(default_factory=TelemetryConfig)
    """What is logged."""

    @model_validator(mode="after")
    def _fits_together(self) -> "RunConfig":
        self._check_model()
        self._check_rewards()
        self._check_people()
        self._check_ranks()
        self._check_flow()
        return self

    def _check_model(self) -> None:
        model, toy = self.model, self.model.family == "toy"
        _require(
            toy or model.dtype != "float64",
            "model.dtype=float64: only family toy computes in it; use float32 or bfloat16",
        )
        _require(
            toy == (model.teacher == "toy"),
            f"model.teacher={model.teacher!r} does not go with model.family={model.family!r}; "
            "family toy has the teacher `toy`, any other a folder or hub name",
        )
        gpus = self.cluster.gpus
        reserved = gpus.rollout + gpus.surrogate + gpus.generator + gpus.evaluator
        _require(
            model.device != "cpu" or reserved == 0,
            f"cluster.gpus reserves {reserved} GPUs but model.device=cpu; use device auto or cuda",
        )

    def _check_rewards(self) -> None:
        names = [reward.name for reward in (*self.rewards, *self.evaluation.rewards)]
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(not twice, f"rewards: name {', '.join(twice)} is used twice; names are unique")
        _require(
            ROLLOUT not in names,
            f"rewards: name {ROLLOUT} means the rollout workers; give the reward another",
        )
        _require(
            self.evaluation.num_images == 0 or bool(self.judges),
            f"evaluation.num_images={self.evaluation.num_images}, but no reward can judge without "
            "people; give evaluation.rewards or set evaluation.num_images=0",
        )
        _require(
            self.evaluation.num_images == 0 or self.prompts.heldout is not None,
            f"evaluation.num_images={self.evaluation.num_images} needs prompts.heldout; "
            "give held-out prompts or set evaluation.num_images=0",
        )

    def _check_people(self) -> None:
        _require(
            not any(reward.human for reward in self.evaluation.rewards),
            "evaluation.rewards: kind human cannot judge held-out images, since nobody waits for "
            "people there; give an automatic reward",
        )
        people = [reward for reward in self.rewards if reward.human]
        _require(
            len(people) <= 1,
            f"rewards: {len(people)} of kind human; one run asks one question of its people",
        )
        for reward in people:
            self._check_human(reward.name, reward.human)

    def _check_human(self, name: str, human: HumanOptions | None) -> None:
        algorithm = self.algorithm
        replay, advantages = algorithm.replay, algorithm.advantages
        assert human is not None
        _require(
            not algorithm.on_policy,
            f"reward {name!r} is of people, who are late: use an async run, with "
            "algorithm.replay.max_staleness_generator of at least 1 (got 0)",
        )
        _require(
            advantages.per_step == "terminal",
            f"reward {name!r}: people see final images only; use "
            f"algorithm.advantages.per_step=terminal (got {advantages.per_step})",
        )
        _require(
            len(self.rewards) == 1 or advantages.combination == "per_reward_advantage",
            f"reward {name!r} is missing for most groups, so it cannot be added to the others raw; "
            "use algorithm.advantages.combination=per_reward_advantage",
        )
        _require(
            replay.capacity_groups >= human.max_open_groups + algorithm.num_groups,
            f"algorithm.replay.capacity_groups={replay.capacity_groups} cannot keep reward "
            f"{name!r}'s max_open_groups={human.max_open_groups} while people look at them; use at "
            f"least {human.max_open_groups + algorithm.num_groups}",
        )

    def _check_ranks(self) -> None:
        algorithm, cluster = self.algorithm, self.cluster
        groups = algorithm.groups_per_microbatch or algorithm.num_groups
        rows = groups * algorithm.group_size
        counts = {"generator": cluster.generator_ranks, "surrogate": cluster.surrogate_ranks}
        for role, ranks in counts.items():
            _require(
                ranks <= rows,
                f"cluster.{role}_ranks={ranks} but a microbatch has {rows} images ({groups} groups "
                f"of {algorithm.group_size}); every rank needs at least one: use at most {rows}",
            )
            _require(
                ranks == 1 or (cluster.runtime == "ray" and cluster.placement == "split"),
                f"cluster.{role}_ranks={ranks} needs cluster.runtime=ray and "
                f"cluster.placement=split (got {cluster.runtime}, {cluster.placement})",
            )
        _require(
            cluster.zero_stage == 0 or cluster.engine == "deepspeed",
            f"cluster.zero_stage={cluster.zero_stage} needs cluster.engine=deepspeed",
        )

    def _check_flow(self) -> None:
        algorithm, cluster = self.algorithm, self.cluster
        capacity, groups = algorithm.replay.capacity_groups, algorithm.num_groups
        _require(
            capacity >= groups,
            f"algorithm.replay.capacity_groups={capacity} cannot hold one iteration's "
            f"{groups} groups; use at least {groups}",
        )
        _require(
            algorithm.on_policy or cluster.max_groups_in_flight >= groups,
            f"cluster.max_groups_in_flight={cluster.max_groups_in_flight} is below "
            f"algorithm.num_groups={groups}, so no batch would ever fill; use at least {groups}",
        )
        _require(
            cluster.runtime == "ray" or cluster.address is None,
            f"cluster.address={cluster.address!r} has no meaning with cluster.runtime=local",
        )
        _require(
            cluster.num_rollout_workers <= cluster.most_rollout_workers,
            f"cluster.max_rollout_workers={cluster.max_rollout_workers} is below "
            f"cluster.num_rollout_workers={cluster.num_rollout_workers}; use at least as many",
        )
        _require(
            cluster.placement == "split" or cluster.max_rollout_workers in (None, 1),
            f"cluster.max_rollout_workers={cluster.max_rollout_workers} with placement=colocated, "
            "whose one process generates too; use placement=split",
        )

    def is_stored(self, group_id: int) -> bool:
        """Whether images of a group are stored: all of one iteration's, every so many iterations.

        Its id alone says so, and every worker knows it without being told.
        """
        every = self.telemetry.images_every
        return every > 0 and group_id // self.algorithm.num_groups % every == 0

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Names of the rewards, in the order of every R axis."""
        return tuple(reward.name for reward in self.rewards)

    @property
    def automatic_rewards(self) -> list[RewardConfig]:
        """The rewards that need no people."""
        return [reward for reward in self.rewards if reward.human is None]

    @property
    def human_reward(self) -> RewardConfig | None:
        """The reward that people give, if there is one."""
        return next((reward for reward in self.rewards if reward.human), None)

    @property
    def judges(self) -> list[RewardConfig]:
        """What held-out images are scored by."""
        return [*self.automatic_rewards, *self.evaluation.rewards]

    @property
    def reward_weights(self) -> tuple[float, ...]:
        """Weights in the same order."""
        return tuple(reward.weight for reward in self.rewards)


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True
) -> RunConfig:
    """Read a YAML config with `key.subkey=value` overrides; ValueError says what to mend.

    `check_files=False` leaves prompts and model folders unlooked at, as on a machine that only
    submits the run.
    """
    tree = _read_yaml(Path(path))
    check_keys(RunConfig, tree, str(path))
    for text in overrides:
        apply_override(tree, text)
        check_keys(RunConfig, tree, f"override {text!r}")
    return config_from_tree(tree, str(path), check_files=check_files)


def config_from_tree(tree: Tree, source: str, *, check_files: bool = True) -> RunConfig:
    """A config from plain data, checked; `source` is what an error names."""
    check_keys(RunConfig, tree, source)
    preset = tree.get("preset", "default")
    if isinstance(preset, str) and preset.startswith("parity_"):
        below = _preset_tree(preset, source)
        tree = tree | {"algorithm": merged(below, tree.get("algorithm") or {})}
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(readable(error, source)) from error
    return _with_paths(config, source, check_files)


def _preset_tree(preset: str, source: str) -> Tree:
    try:
        return dataclasses.asdict(parity(preset.removeprefix("parity_")))  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{source}: preset {preset!r}: {error}") from error


def _read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"no config file {path}; see configs/ for the ones shipped") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({error})") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a config is a mapping of sections, got {type(tree).__name__}")
    return tree


def bundled(path: str) -> str:
    """`bundled:X` as a path into the shipped tiny worlds, any other string unchanged."""
    if not path.startswith("bundled:"):
        return path
    found = BUNDLED / path.removeprefix("bundled:")
    return str(found.parent / "models" / found.name if found.name in BUNDLED_MODELS else found)


def _with_paths(config: RunConfig, source: str, check: bool) -> RunConfig:
    """The config with absolute paths; ValueError for one that should exist and does not."""
    faults: list[str] = []

    def file(key: str, path: Path) -> Path:
        found = Path(bundled(str(path))).expanduser().absolute()
        if check and not found.is_file():
            faults.append(f"{source}: {key}: no file {found}; give an existing file or bundled:...")
        return found

    def weights(key: str, name: str) -> str:
        found = Path(bundled(name)).expanduser()
        if found.exists():
            return str(found.absolute())
        if check and not _is_hub_name(name):
            faults.append(
                f"{source}: {key}: no folder {found.absolute()}; give an existing folder, "
                "bundled:... or a hub name such as stabilityai/stable-diffusion-3.5-medium"
            )
        return str(found.absolute()) if name.startswith("bundled:") else name

    model, prompts = config.model, config.prompts
    if model.family != "toy":
        model = model.model_copy(
            update={
                "teacher": weights("model.teacher", model.teacher),
                "generator": model.generator and weights("model.generator", model.generator),
            }
        )
    heldout = prompts.heldout and file("prompts.heldout", prompts.heldout)
    train = file("prompts.train", prompts.train)
    prompts = prompts.model_copy(update={"train": train, "heldout": heldout})
    run = config.run.model_copy(update={"dir": config.run.dir.expanduser().absolute()})
    if faults:
        raise ValueError("\n".join(faults))
    return config.model_copy(update={"run": run, "model": model, "prompts": prompts})


def _is_hub_name(name: str) -> bool:
    """`owner/name`, where `owner` is not a folder that is simply lacking `name`."""
    return _HUB_NAME.fullmatch(name) is not None and not Path(name.partition("/")[0]).is_dir()


def resolved_yaml(config: RunConfig) -> str:
    """The whole tree as YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_hash(config: RunConfig) -> str:
    """SHA-256 hex of what makes two runs' weights interchangeable.

    That is the network (family, the teacher's name without its folder, how roles are made) and the
    few-step sampler that the generator was made for; not where files lie, nor any rate or count.
    """
    model = config.model
    parts = {
        "family": model.family,
        "teacher": Path(model.teacher).name,
        "roles": model.roles,
        "lora": [model.lora_rank, model.lora_alpha] if model.roles == "lora" else None,
        "sampler": dataclasses.asdict(config.algorithm.sampler),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
