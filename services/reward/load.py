"""From a reward's section of the config to its instance; built-in kinds are imported on demand.

The driver builds every reward once to check the config, so a constructor is cheap: it checks its
options and leaves weights and connections to the first `evaluate`.
"""

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from packaging.requirements import Requirement

from services.config import RewardConfig
from services.reward.contract import FIELDS, Bounded, Prepares, Reward
from services.reward.custom import load_class


@dataclass(frozen=True)
class BuiltIn:
    """Where a built-in reward lives and what it needs installed."""

    module: str
    class_name: str
    packages: tuple[str, ...] = ()
    extra: str = ""


BUILT_IN: Mapping[str, BuiltIn] = {
    "geneval": BuiltIn(
        "services.reward.geneval", "GenevalReward", ("transformers", "scipy"), "geneval"
    ),
    "ocr": BuiltIn("services.reward.ocr", "OcrReward", ("rapidocr", "onnxruntime", "cv2"), "ocr"),
    "jpeg_compressibility": BuiltIn("services.reward.jpeg", "JpegCompressibility"),
    "jpeg_incompressibility": BuiltIn("services.reward.jpeg", "JpegIncompressibility"),
    "preference": BuiltIn(
        "services.reward.preference", "PreferenceReward", ("transformers", "jinja2"), "preference"
    ),
    "vlm_judge": BuiltIn("services.reward.vlm_judge", "VlmJudge", ("httpx",), "judge"),
    "vlm_judge_local": BuiltIn(
        "services.reward.vlm_judge_local",
        "LocalVlmJudge",
        ("transformers", "jinja2"),
        "preference",
    ),
    "http": BuiltIn("services.reward.http_scorer", "HttpScorer", ("httpx",), "judge"),
    "ranked": BuiltIn("services.reward.ranked", "Ranked"),
}


def load_reward(reward: RewardConfig) -> Reward:
    """Build the reward; ValueError names a wrong kind, option, value or missing package."""
    try:
        reward_class = _class_of(reward.kind)
        check_options(reward_class, reward.options)
        instance = reward_class(**reward.options)
        _check_contract(instance)
        _check_budget(instance, reward.deadline_s)
    except ValueError as error:
        raise ValueError(f"reward {reward.name!r} ({reward.kind}): {error}") from error
    return instance


def load_prepared(reward: RewardConfig) -> Reward:
    """Build the reward where it will work and let it load what it needs.

    ValueError says what is missing here, and for a built-in kind what installs it.
    """
    instance = load_reward(reward)
    if isinstance(instance, Prepares):
        try:
            instance.prepare()
        except ImportError as error:
            extra = BUILT_IN[reward.kind].extra if reward.kind in BUILT_IN else ""
            remedy = f"pip install 'tdm-r1[{extra}]'" if extra else "install what it imports"
            raise ValueError(
                f"reward {reward.name!r} ({reward.kind}) cannot work here: {error}; {remedy}"
            ) from error
    return instance


def check_packages(packages: Sequence[str], extra: str) -> None:
    """Raise ValueError naming a package that is missing, or of a version that will not do.

    `packages` are what is imported; `extra` is the extra of tdm-r1 that brings them.
    """
    for package in packages:
        if find_spec(package) is None:
            raise ValueError(f"package {package!r} is missing; pip install 'tdm-r1[{extra}]'")
    for requirement in _requirements_of(extra):
        version = _installed(requirement.name)
        if version is not None and not requirement.specifier.contains(version, prereleases=True):
            raise ValueError(
                f"package {requirement.name} {version} is installed and {requirement.specifier} "
                f"is needed; pip install 'tdm-r1[{extra}]'"
            )


def _requirements_of(extra: str) -> list[Requirement]:
    """What the extra asks for; nothing where tdm-r1 runs from its files alone."""
    try:
        texts = importlib.metadata.requires("tdm-r1") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = [Requirement(text) for text in texts]
    return [each for each in found if each.marker and each.marker.evaluate({"extra": extra})]


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_options(reward_class: type, options: Mapping[str, Any]) -> None:
    """Raise ValueError naming an option that the constructor does not take, or one it lacks."""
    parameters = [
        parameter
        for parameter in inspect.signature(reward_class).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [parameter.name for parameter in parameters]
    for name in options:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"unknown option {name!r}{hint} (allowed: {', '.join(allowed) or 'none'})"
            )
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and parameter.name not in options:
            raise ValueError(f"option {parameter.name!r} is missing; give it under `options`")


def _class_of(kind: str) -> type:
    if kind.startswith("python:"):
        return load_class(kind)
    if kind not in BUILT_IN:
        raise ValueError(
            f"unknown kind; allowed: {', '.join(BUILT_IN)}, or your own as python:module:Class"
        )
    built_in = BUILT_IN[kind]
    check_packages(built_in.packages, built_in.extra)
    return getattr(importlib.import_module(built_in.module), built_in.class_name)


def _check_contract(instance: Any) -> None:
    name = type(instance).__name__
    if not callable(getattr(instance, "evaluate", None)):
        raise ValueError(f"{name} has no evaluate(batch); see docs/rewards.md for the contract")
    if not isinstance(getattr(instance, "version", None), str):
        raise ValueError(f'{name} has no version; give it one, such as version = "1"')
    requires = getattr(instance, "requires", None)
    if not isinstance(requires, list | tuple | set | frozenset) or set(requires) - set(FIELDS):
        raise ValueError(
            f"{name}.requires is {requires!r}; it is a tuple of names out of {', '.join(FIELDS)}, "
            'such as ("image",)'
        )


def _check_budget(instance: Reward, deadline_s: float) -> None:
    if isinstance(instance, Bounded) and instance.budget_s >= deadline_s:
        raise ValueError(
            f"option budget_s={instance.budget_s:g} is not below deadline_s={deadline_s:g}, so a "
            "slow batch would be given up with the answers it has; lower budget_s or raise "
            "deadline_s"
        )
