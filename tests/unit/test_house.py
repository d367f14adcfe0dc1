"""The house rules that a machine can judge (CONTRIBUTING.md)."""

import ast
import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = sorted(p for top in ("tdm_core", "services") for p in (ROOT / top).rglob("*.py"))
BANNED_NAMES = {"utils", "util", "common", "misc", "base", "helpers", "helper"}
BANNED_CALLS = {"torch.save", "torch.load", "pickle.load", "pickle.loads", "numpy.load", "np.load"}
CONFIGS = [ROOT / "tdm_core/config.py", ROOT / "services/config.py"]
MAKE_TARGETS = re.findall(
    r"[\w-]+",
    "help install demo test-unit test test-long fmt lint types contracts golden bench check",
)


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lists = [PROJECT["project"]["dependencies"], *extras]
    return [Requirement(text) for texts in lists for text in texts]


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_import_contracts_hold():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


def test_every_module_of_services_has_its_place_in_the_layers():
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    placed = {name.strip(" ()") for layer in layers for name in re.split(r"[|:]", layer)}
    modules = {
        f"services.{path.stem}"
        for path in (ROOT / "services").iterdir()
        if path.stem not in ("__init__", "__pycache__") and (path.is_dir() or path.suffix == ".py")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules <= placed, f"give them a layer in pyproject.toml: {sorted(modules - placed)}"


def test_no_file_is_called_a_drawer():
    everywhere = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    assert [str(path) for path in everywhere if path.stem in BANNED_NAMES] == []


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=str)
def test_an_init_file_is_a_docstring_and_nothing_else(path):
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_module_opens_with_its_purpose():
    assert [str(p) for p in SOURCES if not ast.get_docstring(ast.parse(p.read_text()))] == []


def test_nothing_pickles():
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS
    ]
    assert calls == []


def test_source_is_ascii():
    sources = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "configs").iterdir()]
    assert [str(path) for path in sources if not path.read_text("utf-8").isascii()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_config_field_is_documented(path):
    for owner in ast.walk(ast.parse(path.read_text())):
        if not isinstance(owner, ast.ClassDef):
            continue
        for node, after in zip(owner.body, [*owner.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{owner.name}.{ast.unparse(node.target)} has no docstring"


def test_every_dependency_is_locked_within_its_range():
    pins = locked()
    for requirement in requirements():
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name} is not in requirements.lock"
        assert requirement.specifier.contains(pin), f"lock has {requirement.name} {pin}"


def test_every_dependency_has_an_upper_bound_and_a_reason():
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        found = re.fullmatch(r'  "([\w.\[\]-]+)[<>=][^"]*",(.*)', line)
        if found:
            assert "<" in line, f"{found[1]} has no upper bound"
    assert all(requirement.specifier for requirement in requirements())


def test_the_lock_takes_either_build_of_torch():
    text = (ROOT / "requirements.lock").read_text()
    assert "torch==2.13.0\n" in text
    pins = [line for line in text.splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    assert [pin for pin in pins if re.match("nvidia|cuda|triton", pin)] == []


def test_make_has_its_targets():
    text = (ROOT / "Makefile").read_text()
    assert [name for name in MAKE_TARGETS if not re.search(rf"^{name}:", text, re.M)] == []


def test_hooks_are_local():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}


def test_ci_is_a_strict_script_that_ends_in_make_check():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert text.rstrip().endswith("make check")


@pytest.mark.parametrize("world", ["services/demo", "services/demo/words"])
def test_the_bundled_models_are_the_ones_that_were_summed(world):
    folder = ROOT / world / "models"
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    summed = {name: digest for digest, name in lines}
    there = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*/**/*")
        if path.is_file()
    }
    remedy = f"cd {world}/models && find */ -type f | LC_ALL=C sort | xargs sha256sum"
    assert there == summed, f"write SHA256SUMS anew: {remedy} > SHA256SUMS"
