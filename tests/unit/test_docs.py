"""What the documents say of files, commands, options and configs is so."""

import re
import shlex
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
from typer.main import get_command

from services.cli import app
from services.config import HumanOptions, RewardConfig, load_config
from services.reward.load import BUILT_IN

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy/README.md"]
COMMANDS = get_command(app).commands
LISTED = ("configs", "examples", "benchmarks", "tdm_core", "services", "deploy", "docs")
DATA = (
    "services/demo/models",
    "services/demo/prompts",
    "services/demo/words/models",
    "services/demo/words/prompts",
    "docs/decisions",
)
"""Folders that the tree names and does not list."""


def tree_of_readme() -> set[str]:
    """Paths in the README's tree; depth is two spaces a folder."""
    block = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    paths, above = set(), []
    for line in block.strip("\n").splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above = [*above[:depth], name.rstrip("/")]
        paths.add("/".join(above))
        assert len(line.split(maxsplit=1)) == 2 or name.endswith("/"), f"say what {name} is"
    return paths


def files_of_tree() -> set[str]:
    found = {
        str(path.relative_to(ROOT))
        for top in LISTED
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.name != "__init__.py" and "__pycache__" not in path.parts
    }
    return {path for path in found if not path.startswith(DATA)}


def shell_lines() -> list[tuple[str, list[str]]]:
    """(document, words) of every `tdm-r1 ...` line in a code block, comments left out."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```bash\n(.*?)```", document.read_text(), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("tdm-r1 "):
                    found.append((document.name, shlex.split(line, comments=True)[1:]))
    return found


def test_the_tree_in_the_readme_lists_every_file_and_no_other():
    listed, there = tree_of_readme(), files_of_tree()
    assert there - listed == set(), "add them to the tree in README.md"
    gone = {path for path in listed if not (ROOT / path).exists()}
    assert gone == set(), "take them out of the tree in README.md"


def test_every_link_between_documents_leads_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            path = (document.parent / target).resolve()
            if "://" not in target:
                assert path.exists(), f"{document.name}: {target}"


@pytest.mark.parametrize(("document", "words"), shell_lines(), ids=str)
def test_every_command_line_in_the_documents_is_one(document, words):
    command, words = COMMANDS[words[0]], words[1:]
    if hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{document}: {word}"


@pytest.mark.parametrize(("document", "words"), shell_lines(), ids=str)
def test_every_config_line_in_the_documents_loads(document, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[0] in ("train", "submit") and words[1].startswith("configs/"):
        overrides = [word for word in words[2:] if "=" in word and not word.startswith("-")]
        load_config(words[1], overrides, check_files=False)


def test_every_make_target_in_the_documents_is_one():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", document.read_text(), re.M)
    }
    assert named <= targets


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text().split("## Commands")[1].split("## The tree")[0]
    assert [
        name for name in COMMANDS if f"`{name}" not in text and f"tdm-r1 {name}" not in text
    ] == []


def test_every_config_key_in_operations_is_one():
    table = (ROOT / "docs/operations.md").read_text()
    config = load_config(ROOT / "configs/toy.yaml", check_files=False)
    for key in re.findall(r"`((?:run|algorithm|cluster|evaluation|checkpoint)\.[a-z_.]+)", table):
        here = config
        for name in key.rstrip(".").split("."):
            assert hasattr(here, name), key
            here = getattr(here, name)


def options_of(kind: str) -> set[str]:
    if kind == "human":
        return set(HumanOptions.model_fields)
    built_in = BUILT_IN[kind]
    reward_class = getattr(import_module(built_in.module), built_in.class_name)
    return set(signature(reward_class).parameters)


@pytest.mark.parametrize("kind", [*BUILT_IN, "human"])
def test_every_option_of_a_reward_stands_in_its_section(kind):
    text = (ROOT / "docs/rewards.md").read_text()
    sections = re.findall(r"^### ([^\n]*)\n(.*?)(?=^##)", text, re.M | re.S)
    (about,) = [body for title, body in sections if f"`{kind}`" in title]
    assert {name for name in options_of(kind) if f"`{name}`" not in about} == set()


def test_every_setting_of_a_reward_stands_in_its_document():
    text = (ROOT / "docs/rewards.md").read_text()
    assert {name for name in RewardConfig.model_fields if name not in text} == set()


def test_decisions_are_numbered_and_short():
    records = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text()
        for part in ("**Context.**", "**Decision.**", "**Cost.**", "**Revisit**"):
            assert part in text, f"{path.name} has no {part}"
        assert len(text.splitlines()) <= 25, path.name
