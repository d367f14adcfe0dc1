"""What a run's files must have, so that what another hand has written takes no reader down: a line
is skipped and counted (`Tail`), a small file is a `BrokenRunError`. What they have beside is their
own business."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True)
Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, lt=2**33)]
"""Unix seconds, that a calendar knows."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Line(BaseModel):
    model_config = STRICT


class _About(_Line):
    time: Time
    step: Count
    policy_version: Count


class _Verdict(_Line):
    state: Literal["ready", "pending", "failed", "expired"]
    value: Number | None
    reason: str
    version: str = ""
    latency_s: Number | None = None
    parts: dict[str, Number] = {}


class _Appearance(_Line):
    digest: Digest
    predictions: list[Digest] = []
    sigmas: list[Number] = []
    step: Count
    group_id: Count
    sample: Count
    policy_version: Count
    prompt_id: str
    prompt: str
    rewards: dict[str, _Verdict]


class GroupEvent(_Line):
    """A line of groups.jsonl; services/replay/history.py says what each event tells."""

    time: Time
    group_id: Count
    event: Literal[
        "generated",
        "judged",
        "labelled",
        "asked",
        "generator",
        "surrogate",
        "compared",
        "left",
    ]
    policy_version: Count = Field(description="The trainer's at that time")
    by: Count | None = Field(None, description="Version that made the group")
    reward: str = ""
    version: str = Field("", description="Of the reward")
    revision: Count = Field(0, description="Of the reward's verdict, or of the group's rewards")
    latency_s: Number = 0.0
    states: dict[str, Count] = Field({}, description="Verdicts by state")
    reason: str = Field("", description="Why a value is missing")
    values: list[list[Number | None]] = Field(
        [], description="By image of the whole group; one value, or one a step"
    )
    parts: list[dict[str, Number]] = Field(
        [], description="By image, of people: n votes, likes among them, rho"
    )
    finals: dict[str, list[Number | None]] = Field(
        {}, description="Automatic rewards of the final images, by name and image"
    )
    weight: Number = Field(1.0, description="In the surrogate's mean over groups")
    advantages: list[list[Number | None]] = Field([], description="By image and denoising step")
    rewards: dict[str, list[list[Number | None]]] = Field(
        {}, description="Per-step rewards, by name, image and denoising step"
    )


class _Tombstone(_Line):
    time: Time
    group_id: Count
    digests: list[Digest]
    rule: str


class _HeldOutImage(_Line):
    number: Count
    prompt_id: str
    prompt: str
    digest: Digest


class _HeldOutVerdicts(_Line):
    number: Count
    rewards: dict[str, _Verdict]


class _EvaluationLine(_Line):
    evaluation: str
    time: Time
    policy_version: Count | None = None
    images: list[_HeldOutImage] = []
    verdicts: list[_HeldOutVerdicts] = []


class _Alert(_Line):
    id: str = ""
    time: Time = 0.0
    step: Count | None = None
    cleared_at: Time | None = None
    cleared_step: Count | None = None


class _Gpu(_Line):
    name: str
    used_bytes: Count
    total_bytes: Count
    utilisation: Number | None


class _Worker(_Line):
    pids: list[int]
    alive: bool
    restarts: Count
    since: Time | None = None
    died_at: Time | None = None
    heard_at: Time | None = None
    gpus: list[_Gpu] = []


class _Silence(_Line):
    start: Time = Field(alias="from")
    until: Time


class _Wait(_Line):
    what: str = Field(alias="for")
    seconds: Number


class _Change(_Line):
    time: Time
    iteration: Count
    command: str
    by: str
    values: dict[str, Annotated[list[Number], Field(min_length=2, max_length=2)]]


class _Pool(_Line):
    workers: Count
    fewest: Count
    most: Count
    held: Count | None
    automatic: bool = True


class Status(_Line):
    """status.json."""

    state: Literal["starting", "running", "paused", "ending", "finished", "stopped", "failed"]
    updated_at: Time
    iteration: Count | None = None
    iterations: Count | None = None
    policy_version: Count | None = None
    surrogate_version: Count | None = None
    doing: str = ""
    waiting: list[_Wait] = []
    workers: dict[str, _Worker] = {}
    changes: list[_Change] = []
    pools: dict[str, _Pool] = {}
    resting: dict[str, str] = {}
    silence: _Silence | None = None
    error: str | None = None


class Origin(_Line):
    """run.json."""

    created_at: Time
    config_hash: str = ""
    seed: int | None = None


class Summary(_Line):
    """summary.json."""


class CommandFile(_Line):
    """A file of commands/ (`commands.Command`)."""

    id: str
    type: str
    arguments: dict[str, Any] = {}
    state: Literal["requested", "acknowledged", "applied", "rejected", "timed_out"] = "requested"
    times: dict[str, Time]
    reason: str = ""
    by: str = ""
    key: str = ""


class _CheckpointFile(_Line):
    sha256: str
    num_bytes: Count = Field(alias="bytes")


class LearnedLabels(_Line):
    """People's labels that the surrogate had learned from (`services.replay.learned_labels`)."""

    answers: Count = Field(description="Of groups; one that was revised counts again")
    votes: float = Field(description="Weight of the votes in them")
    newest_label: Count | None = Field(
        None, description="`seq` of the newest label in them; null where it was not told"
    )


class _ReplayFacts(_Line):
    labels: LearnedLabels | None = None


class _WorkerFacts(_Line):
    replay: _ReplayFacts = _ReplayFacts()


class _CheckpointFacts(_Line):
    iteration: Count
    policy_version: Count
    surrogate_version: Count
    config_hash: str
    workers: _WorkerFacts = _WorkerFacts()


class Manifest(_Line):
    """manifest.json of a checkpoint, as far as lists show it."""

    files: dict[str, _CheckpointFile]
    facts: _CheckpointFacts


_NUMBERS = TypeAdapter(dict[str, float | None], config=STRICT)


def are_numbers(line: dict[str, Any]) -> bool:
    """A line of metrics.jsonl: time, step and policy_version, and numbers or null by name."""
    return _fits(_NUMBERS.validate_python, line) and _fits(_About.model_validate, line)


def is_appearance(line: dict[str, Any]) -> bool:
    """A line of images/index.jsonl."""
    return _fits(_Appearance.model_validate, line)


def is_group_event(line: dict[str, Any]) -> bool:
    """A line of groups.jsonl."""
    return _fits(GroupEvent.model_validate, line)


def is_tombstone(line: dict[str, Any]) -> bool:
    """A line of images/removed.jsonl."""
    return _fits(_Tombstone.model_validate, line)


def is_evaluation(line: dict[str, Any]) -> bool:
    """A line of evaluations/index.jsonl."""
    return _fits(_EvaluationLine.model_validate, line)


def is_alert(line: dict[str, Any]) -> bool:
    """A line of alerts.jsonl."""
    return _fits(_Alert.model_validate, line)


def _fits(validate: Any, line: dict[str, Any]) -> bool:
    try:
        validate(line)
    except ValidationError:
        return False
    return True
