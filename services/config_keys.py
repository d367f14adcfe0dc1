"""Checks on a config before it becomes typed: unknown keys, overrides, readable type errors.

Works on any tree of pydantic models, stdlib dataclasses and lists of them; knows no field by name.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

Tree = dict[str, Any]


def parse_override(text: str) -> tuple[list[str], Any]:
    """Split `a.b=value` into its key path and its value, read as YAML; ValueError otherwise."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ValueError(f"override {text!r}: write it as key.subkey=value, such as run.seed=3")
    try:
        return path, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"override {text!r}: the value is no YAML ({error})") from error


def apply_override(tree: Tree, text: str) -> None:
    """Set one `key.subkey=value` in `tree`; a number in the key is a place in a list."""
    path, value = parse_override(text)
    here: Any = tree
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        where = ".".join(path[: depth + 1])
        if isinstance(here, list):
            place = _place(name, here, text, where)
            if last:
                here[place] = value
            here = here[place]
        elif isinstance(here, dict):
            if last:
                here[name] = value
            elif here.get(name) is None:
                here[name] = {}
            here = here[name]
        else:
            above = ".".join(path[:depth])
            raise ValueError(f"override {text!r}: {above} is {here!r}, which has no part {name!r}")


def _place(name: str, items: list[Any], text: str, where: str) -> int:
    if name.isdecimal() and int(name) < len(items):
        return int(name)
    allowed = f"0 to {len(items) - 1}" if items else "none, the list is empty"
    raise ValueError(f"override {text!r}: {where} is no item of the list; allowed: {allowed}")


def merged(below: Tree, above: Tree) -> Tree:
    """A new tree: `above` wins, sections are merged key by key, lists are replaced whole."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            result[key] = merged(under, value)
        else:
            result[key] = value
    return result


def fields_of(kind: Any) -> dict[str, Any] | None:
    """Field name to type of a model or dataclass (through Optional), None for any other type."""
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return {name: info.annotation for name, info in option.model_fields.items()}
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            hints = typing.get_type_hints(option)
            return {item.name: hints[item.name] for item in dataclasses.fields(option)}
    return None


def _options(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def dotted_keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key below `kind`, dotted; the items of a list are keyed `N`."""
    for name, inner in (fields_of(kind) or {}).items():
        yield prefix + name
        if typing.get_origin(inner) is list:
            yield from dotted_keys(typing.get_args(inner)[0], f"{prefix}{name}.N.")
        else:
            yield from dotted_keys(inner, f"{prefix}{name}.")


def check_keys(kind: Any, tree: Any, source: str) -> None:
    """ValueError naming `source`, each unknown dotted key of `tree`, and the nearest known one."""
    known = list(dotted_keys(kind))
    faults = [
        f"{source}: unknown key {key!r}; {_suggestion(key, siblings, known)}"
        for key, siblings in _unknown(kind, tree, "")
    ]
    if faults:
        raise ValueError("\n".join(faults))


def _unknown(kind: Any, tree: Any, prefix: str) -> Iterator[tuple[str, list[str]]]:
    known = fields_of(kind)
    if known is None or not isinstance(tree, dict):
        return
    for name, value in tree.items():
        if name not in known:
            yield f"{prefix}{name}", [f"{prefix}{other}" for other in known]
        elif typing.get_origin(known[name]) is list and isinstance(value, list):
            item_kind = typing.get_args(known[name])[0]
            for place, item in enumerate(value):
                yield from _unknown(item_kind, item, f"{prefix}{name}.{place}.")
        else:
            yield from _unknown(known[name], value, f"{prefix}{name}.")


def _suggestion(key: str, siblings: list[str], known: list[str]) -> str:
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.7)
    if not near:
        leaf = key.rpartition(".")[2]
        leaves = {other.rpartition(".")[2]: other for other in reversed(known)}
        near = [leaves[name] for name in difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.6)]
    if near:
        return f"did you mean {near[0]!r}?"
    return "known here: " + ", ".join(name.rpartition(".")[2] for name in siblings)


def readable(error: ValidationError, source: str) -> str:
    """One line a fault: `source: key: problem (got X; allowed Y)`."""
    return "\n".join(f"{source}: {_line(dict(fault))}" for fault in error.errors())


def _line(fault: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    raised = fault.get("ctx", {}).get("error")
    if isinstance(raised, ValueError):  # our own check: its message is already whole
        return f"{key}: {raised}" if key else str(raised)
    if fault["type"] == "missing":
        return f"{key}: is missing and has no default; add it"
    allowed = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key}: {allowed} (got {fault['input']!r})"
