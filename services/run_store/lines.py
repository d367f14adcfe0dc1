"""What the lines of a run's files must have, so that one that another hand has written is skipped
and counted (`Tail`), and takes no reader down. What they have beside is their own business."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True)
Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = STRICT


class _About(_Line):
    time: Number
    step: Count
    policy_version: Count


class _Verdict(_Line):
    state: Literal["ready", "pending", "failed", "expired"]
    value: Number | None
    reason: str


class _Appearance(_Line):
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    step: Count
    group_id: Count
    sample: Count
    policy_version: Count
    prompt_id: str
    prompt: str
    rewards: dict[str, _Verdict]


class _Alert(_Line):
    id: str = ""
    time: Number = 0.0
    step: Count | None = None
    cleared_at: Number | None = None
    cleared_step: Count | None = None


_NUMBERS = TypeAdapter(dict[str, float | None], config=STRICT)


def are_numbers(line: dict[str, Any]) -> bool:
    """A line of metrics.jsonl: time, step and policy_version, and numbers or null by name."""
    return _fits(_NUMBERS.validate_python, line) and _fits(_About.model_validate, line)


def is_appearance(line: dict[str, Any]) -> bool:
    """A line of images/index.jsonl."""
    return _fits(_Appearance.model_validate, line)


def is_alert(line: dict[str, Any]) -> bool:
    """A line of alerts.jsonl."""
    return _fits(_Alert.model_validate, line)


def _fits(validate: Any, line: dict[str, Any]) -> bool:
    try:
        validate(line)
    except ValidationError:
        return False
    return True
