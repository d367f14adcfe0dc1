"""Commands to runs on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from services.run_store.commands import Command, Type
from services.runs_api.schemas.runs import moment


class CommandIn(BaseModel):
    """What a run shall do."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"type": "pause", "timeout_s": 60}}
    )
    type: Type
    arguments: dict[str, float | str] = Field(
        default_factory=dict,
        description="`set`: values by key of the config; `scale`: `pool` (`rollout`, or a"
        " reward's name) and `workers` (a number, or of a reward `auto`). Others have none",
        max_length=32,
    )
    timeout_s: Annotated[float, Field(gt=0, le=86400)] = Field(
        60.0, description="A run that sees it later than this does not obey"
    )


class CommandView(BaseModel):
    """A command, and how far it has come."""

    id: str
    type: str
    arguments: dict[str, Any] = Field(description="What the type needs")
    state: Literal["requested", "acknowledged", "applied", "rejected", "timed_out"]
    by: str = Field(description="Who asked; empty for the command line")
    reason: str = Field(description="Why it was rejected or timed out")
    times: dict[str, datetime] = Field(description="State to when it was reached; and `expires`")

    @classmethod
    def of(cls, command: Command) -> Self:
        """As it goes out."""
        return cls(
            id=command.id,
            type=command.type,
            arguments=dict(command.arguments),
            state=command.state,
            by=command.by,
            reason=command.reason,
            times={state: moment(time) for state, time in command.times.items()},
        )


class CommandList(BaseModel):
    """Commands, the newest first."""

    items: list[CommandView]
