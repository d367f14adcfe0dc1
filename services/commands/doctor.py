"""`tdm-r1 doctor`: what is wrong with this machine or a config, and what helps."""

import hashlib
import importlib.metadata
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from services.commands.console import out, print_json, say
from services.config import BUNDLED, load_config

State = Literal["ok", "warning", "problem"]
PACKAGES = ("torch", "ray", "deepspeed", "diffusers", "transformers", "peft", "pydantic")
MEMORY_GB, DISK_GB, SHM_GB = 8, 5, 2
PORTS = {6379: "Ray's head", 8265: "Ray's jobs and dashboard"}
BUNDLED_SUMS = tuple(BUNDLED / world / "models/SHA256SUMS" for world in ("", "words"))


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    state: State
    detail: str
    remedy: str = ""


def doctor(configs: list[Path], as_json: bool) -> int:
    """Report; exit code 1 if something keeps a run from working."""
    findings = list(examine(configs))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    return int(any(finding.state == "problem" for finding in findings))


def examine(configs: list[Path]) -> Iterator[Finding]:
    """Every finding, good ones too."""
    yield from _software()
    yield from _machine()
    yield from (_port(port, use) for port, use in PORTS.items())
    yield _bundled()
    for path in configs:
        yield _config(path)


def _print(findings: list[Finding]) -> None:
    colours = {"ok": "green", "warning": "yellow", "problem": "red"}
    for finding in findings:
        out.print(f"[{colours[finding.state]}]{finding.state:8}[/]", end=" ")
        say(f"{finding.subject:16} {finding.detail}")
        if finding.remedy:
            say(f"{'':26}remedy: {finding.remedy}")


def _software() -> Iterator[Finding]:
    version = platform.python_version()
    fits = sys.version_info[:2] in ((3, 11), (3, 12))
    yield Finding(
        "python", "ok" if fits else "problem", version, "" if fits else "use Python 3.11 or 3.12"
    )
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", "run `make install`")


def _machine() -> Iterator[Finding]:
    yield Finding("cores", "ok", f"{psutil.cpu_count()} CPU cores")
    memory = psutil.virtual_memory()
    yield _at_least(
        "memory", memory.available, MEMORY_GB, "close other programs, or use fewer workers"
    )
    yield _at_least("disk", shutil.disk_usage(".").free, DISK_GB, "free some, or set run.dir")
    if Path("/dev/shm").is_dir():
        yield _at_least(
            "shared memory",
            shutil.disk_usage("/dev/shm").free,
            SHM_GB,
            "Ray is slow without it; in a container give it more (--shm-size=4g)",
        )
    yield _gpus()


def _at_least(subject: str, num_bytes: float, wanted_gb: float, remedy: str) -> Finding:
    enough = num_bytes >= wanted_gb * 1e9
    detail = f"{num_bytes / 1e9:.1f} GB free" + ("" if enough else f", {wanted_gb} GB are good")
    return Finding(subject, "ok" if enough else "warning", detail, "" if enough else remedy)


def _gpus() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPUs", "ok", "none (the bundled world needs none)")
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    import torch  # slow to import, so only where there is a GPU to ask about

    found = "; ".join(listed.stdout.split("\n")[:-1]) or "none"
    if torch.cuda.is_available():
        return Finding("GPUs", "ok", found)
    return Finding(
        "GPUs",
        "warning",
        f"the driver lists {found}, but torch {torch.__version__} sees none",
        "install torch's CUDA build: pip install torch==2.13.0",
    )


def _port(port: int, use: str) -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    detail = f"port {port} ({use}) is {'taken' if taken else 'free'}"
    remedy = "fine if that is your Ray cluster; else start Ray on another port" if taken else ""
    return Finding("ports", "warning" if taken else "ok", detail, remedy)


def _bundled() -> Finding:
    missing = [str(sums) for sums in BUNDLED_SUMS if not sums.is_file()]
    if missing:
        return Finding(
            "bundled models",
            "problem",
            f"{', '.join(missing)} is missing",
            "check the repository out again; the model files lie in services/demo",
        )
    summed = [
        (sums.parent / line.split(maxsplit=1)[1].strip(), line.split(maxsplit=1)[0])
        for sums in BUNDLED_SUMS
        for line in sums.read_text().splitlines()
    ]
    wrong = [str(path.relative_to(BUNDLED)) for path, digest in summed if _digest(path) != digest]
    if wrong:
        detail, remedy = f"changed or missing: {', '.join(wrong)}", "check these files out again"
        return Finding("bundled models", "problem", detail, remedy)
    return Finding("bundled models", "ok", f"{len(summed)} files as they were made")


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(path: Path) -> Finding:
    try:
        load_config(path)
    except ValueError as error:
        said = str(error).replace(f"{path}: ", "").replace("\n", "; ")
        return Finding(str(path), "problem", said, "mend the config as the message says")
    return Finding(str(path), "ok", "loads, and its files are there")
