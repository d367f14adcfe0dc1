"""The settings of the label service and of the dashboard: one file for both, the command line
over it.

The file's lines are the label service's. What both have (`WebSettings`) holds for the dashboard
too, unless its own section `dashboard:` says otherwise.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from services.labels.settings import Settings as LabelSettings
from services.runs_api.settings import Settings as RunsSettings
from services.web.settings import WebSettings

Given = Mapping[str, Any]
"""Settings of the command line by name; None is not given."""
STDIN = Path("-")


def load(
    file: Path | None, labels: Given | None = None, dashboard: Given | None = None
) -> tuple[LabelSettings, RunsSettings]:
    """What the YAML `file` says (`-` is the standard input), and over it what was given for each
    service. ValueError where a setting is wrong."""
    values = _read(file)
    own = _mapping(values.pop("dashboard", None), f"`dashboard:` of {file}")
    shared = {name: values[name] for name in WebSettings.model_fields if name in values}
    return (
        LabelSettings.model_validate(values | _without_none(labels)),
        RunsSettings.model_validate(shared | own | _without_none(dashboard)),
    )


def dump(labels: LabelSettings, dashboard: RunsSettings) -> str:
    """A file that `load` reads the same settings from."""
    values = labels.model_dump(mode="json") | {"dashboard": dashboard.model_dump(mode="json")}
    return yaml.safe_dump(values)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    text = sys.stdin.read() if file == STDIN else file.read_text()
    return _mapping(yaml.safe_load(text), str(file))


def _mapping(values: Any, of: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{of} holds no settings; write lines of `name: value`")
    return values


def _without_none(given: Given | None) -> dict[str, Any]:
    return {name: value for name, value in (given or {}).items() if value is not None}
