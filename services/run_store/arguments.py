"""What a command needs beside its type, checked where it is sent and again where it is obeyed.

`set` changes some of the config between two iterations: those numbers that every iteration reads
anew, and that no worker, batch or stored state is built from.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from services.config import RunConfig
from services.config_keys import readable

POOL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,199}")
"""`rollout`, or a reward's name (`RewardConfig.name`)."""


class RefusedError(ValueError):
    """What is asked of the run is not allowed; the message says what is."""


@dataclass(frozen=True)
class LiveParameter:
    """A number of the config that may change while the run goes on."""

    key: str
    """Its place in the config."""
    lowest: float
    highest: float
    what: str
    """For people."""
    is_count: bool = False
    """Whether it is a whole number."""

    @property
    def allowed(self) -> str:
        """Its bounds, in words."""
        return f"{self.lowest:g} to {self.highest:g}" + (", whole" if self.is_count else "")

    def checked(self, value: Any) -> float | int:
        """The value as a number; RefusedError outside the bounds."""
        try:
            number = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError):
            number = float("nan")
        is_whole = number.is_integer() or not self.is_count
        if not (self.lowest <= number <= self.highest and is_whole):
            raise RefusedError(f"{self.key}={value!r}: allowed {self.allowed}")
        return int(number) if self.is_count else number


LIVE = {
    parameter.key: parameter
    for parameter in (
        LiveParameter("algorithm.generator.lr", 1e-9, 1e-2, "generator's learning rate"),
        LiveParameter("algorithm.fake_score.lr", 1e-9, 1e-2, "fake score's learning rate"),
        LiveParameter("algorithm.surrogate.lr", 1e-9, 1e-2, "surrogate's learning rate"),
        LiveParameter("algorithm.generator.reward_scale", 0, 10, "factor of the reward term"),
        LiveParameter("algorithm.generator.reward_guidance", 0, 20, "surrogate's guidance scale"),
        LiveParameter(
            "algorithm.generator.distillation_weight", 0, 1, "weight of the teacher's guidance"
        ),
        LiveParameter("algorithm.surrogate.regulariser", 0, 1, "pulls it to the teacher"),
        LiveParameter("algorithm.fake_score.teacher_regulariser", 0, 1, "pulls it to the teacher"),
        LiveParameter(
            "algorithm.replay.max_staleness_generator", 1, 64, "versions (async runs)", True
        ),
        LiveParameter(
            "algorithm.replay.max_staleness_surrogate", 1, 4096, "versions (async runs)", True
        ),
        LiveParameter("evaluation.every", 0, 10**6, "iterations; 0 not on the way", True),
        LiveParameter("checkpoint.every", 0, 10**6, "iterations; 0 at the end only", True),
    )
}
"""By key."""


def checked(type: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What goes into the inbox; RefusedError where it cannot be meant."""
    if type == "set":
        return _checked_values(arguments)
    if type == "scale":
        return _checked_size(arguments)
    if arguments:
        raise RefusedError(f"{type} takes no arguments (got {', '.join(map(str, arguments))})")
    return {}


def _checked_values(values: Mapping[str, Any]) -> dict[str, float | int]:
    if not values:
        raise RefusedError(f"set needs at least one key=value; keys: {', '.join(LIVE)}")
    for key in values:
        if key not in LIVE:
            raise RefusedError(
                f"{key} cannot be set while a run goes on; allowed: {', '.join(LIVE)}. For others "
                "start another run"
            )
    return {key: LIVE[key].checked(value) for key, value in values.items()}


def _checked_size(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`pool`, and `workers`: a number, or `auto` for what its queue asks for."""
    pool, workers = arguments.get("pool"), arguments.get("workers")
    if isinstance(workers, float | str) and str(workers).removesuffix(".0").isdecimal():
        workers = int(float(workers))
    is_size = workers == "auto" or (type(workers) is int and 1 <= workers <= 1000)
    is_pool = isinstance(pool, str) and POOL.fullmatch(pool)
    if len(arguments) != 2 or not is_pool or not is_size:
        raise RefusedError(
            "scale takes pool (rollout, or a reward's name) and workers (1 to 1000, or auto); got "
            f"{dict(arguments)!r}"
        )
    return {"pool": pool, "workers": workers}


def now(config: RunConfig, key: str) -> float | int:
    """A live parameter as it is in a config."""
    here: Any = config.model_dump()
    for name in key.split("."):
        here = here[name]
    return here


def changed(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with these live parameters, as whole and as checked as it was before.

    RefusedError where that run cannot take one of them.
    """
    values = _checked_values(values)
    for key in values:
        _require_use(config, key)
    tree = config.model_dump()
    for key, value in values.items():
        *above, name = key.split(".")
        section = tree
        for part in above:
            section = section[part]
        section[name] = value
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise RefusedError(readable(error, "set")) from None


def _require_use(config: RunConfig, key: str) -> None:
    if ".max_staleness_" in key and config.algorithm.on_policy:
        raise RefusedError(f"{key}: this run is on-policy from its start to its end")
    if key == "evaluation.every" and not config.evaluation.num_images:
        raise RefusedError(f"{key}: this run has no evaluator (evaluation.num_images is 0)")
