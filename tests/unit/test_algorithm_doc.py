"""docs/algorithm.md names what exists, names all of it, and states the defaults as they are."""

import importlib
import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from tdm_core.config import AlgorithmConfig, parity

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "algorithm.md").read_text()
NAMES = sorted(set(re.findall(r"`(tdm_core(?:\.\w+)+)`", TEXT)))
MODULES = (
    "tdm_core.losses.surrogate",
    "tdm_core.losses.fake_score",
    "tdm_core.losses.generator",
    "tdm_core.losses.replay",
    "tdm_core.noise_schedule",
    "tdm_core.sampler",
    "tdm_core.advantages",
    "tdm_core.ema",
)
TASKS = ("ocr", "geneval", "image_reward", "hps")


def resolve(name: str):
    """The object of a dotted name, through its longest importable prefix."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


def value_of(config: AlgorithmConfig, option: str) -> str:
    found = config
    for part in option.split("."):
        found = getattr(found, part)
    return str(found)


def every_option(config=None, prefix="") -> set[str]:
    found = set()
    for item in fields(config := config or AlgorithmConfig()):
        value = getattr(config, item.name)
        nested = is_dataclass(value)
        found |= every_option(value, f"{item.name}.") if nested else {prefix + item.name}
    return found


def table(header: str) -> list[list[str]]:
    """Rows of the table whose header line begins so."""
    lines = TEXT[TEXT.index(header) :].splitlines()[2:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


OPTIONS = table("| option | meaning | default | parity |")
BY_TASK = table("| parity by task |")


@pytest.mark.parametrize("name", NAMES)
def test_every_dotted_name_exists(name):
    resolve(name)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_named(module):
    public = {
        f"{module}.{name}"
        for name, found in vars(importlib.import_module(module)).items()
        if inspect.isfunction(found) and found.__module__ == module and not name.startswith("_")
    }
    assert public <= set(NAMES)


def test_the_options_table_holds_every_option_once():
    listed = [row[0].strip("`") for row in OPTIONS]
    assert len(listed) == len(set(listed))
    assert set(listed) == every_option()


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row[0].strip("`"))
def test_defaults_and_parity_are_as_the_table_says(row):
    option, _, default, parity_value = row[0].strip("`"), *row[1:]
    assert value_of(AlgorithmConfig(), option) == default
    by_task = {value_of(parity(task), option) for task in TASKS}
    assert by_task == {parity_value} or parity_value == "by task"
    listed = option in [other[0].strip("`") for other in BY_TASK]
    assert listed == (parity_value == "by task")


@pytest.mark.parametrize("row", BY_TASK, ids=lambda row: row[0].strip("`"))
def test_the_values_by_task_are_as_the_table_says(row):
    assert [value_of(parity(task), row[0].strip("`")) for task in TASKS] == row[1:]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:unit|integration)/\S+\.py)`", TEXT))))
def test_every_test_file_it_points_to_exists(path):
    assert (ROOT / "tests" / path).is_file()


def test_it_is_plain_ascii():
    assert TEXT.isascii()
