"""A run's workers as its status tells; how those of a silent run are, nobody knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from services.run_store.run_folder import ENDED

State = Literal["alive", "resting", "dead", "unknown", "ended"]


@dataclass(frozen=True)
class Gpu:
    """What a process computes on (`runtime.handles.GpuState`)."""

    name: str
    used_bytes: int
    """By all its processes."""
    total_bytes: int
    utilisation: float | None
    """0 to 1; None where nothing can tell."""


@dataclass(frozen=True)
class Worker:
    """One host of the run."""

    name: str
    role: str
    """The name without its number."""
    state: State
    pids: list[int]
    """One a rank."""
    restarts: int
    since: float | None
    """Unix time since when it is so; None where the status does not tell."""
    heard_at: float | None = None
    """Unix time at which its process last answered; None where the status does not tell."""
    gpus: list[Gpu] = field(default_factory=list)
    """One a rank that computes on one."""


def workers_of(facts: Mapping[str, Any]) -> list[Worker]:
    """Workers by name, from `facts_of` a run."""
    resting = facts.get("resting", {})
    return [
        Worker(
            name,
            _role(name),
            _state(facts["state"], said["alive"], name in resting),
            said["pids"],
            said["restarts"],
            said.get("since"),
            said.get("heard_at"),
            [
                Gpu(gpu["name"], gpu["used_bytes"], gpu["total_bytes"], gpu["utilisation"])
                for gpu in said.get("gpus", [])
            ],
        )
        for name, said in sorted(facts.get("workers", {}).items())
    ]


def _role(name: str) -> str:
    return re.sub(r"-\d+$", "", name)


def _state(run: str, alive: bool, rests: bool) -> State:
    if run in ENDED:
        return "ended"
    if run == "silent":
        return "unknown"
    if not alive:
        return "dead"
    return "resting" if rests else "alive"
