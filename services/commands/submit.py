"""`tdm-r1 submit`: a checked config goes to a Ray cluster as a job."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from services.commands.console import note
from services.config import load_config

EXCLUDED = [".git", ".venv", "runs"]
"""Parts of a working folder that a job does not need."""


def submit(
    config_file: str, overrides: list[str], address: str, working_dir: Path, follow: bool
) -> int:
    """Exit code of `ray job submit`. The config is checked here, its files on the cluster."""
    load_config(config_file, overrides, check_files=False)
    if not (working_dir / config_file).is_file():
        raise ValueError(
            f"{config_file} is not in --working-dir {working_dir}, so the job would not find it; "
            "give it relative to that folder"
        )
    command = submission(config_file, overrides, address, working_dir, follow)
    note(f"submitting to {address}")
    return subprocess.run(command, check=False).returncode


def submission(
    config_file: str, overrides: list[str], address: str, working_dir: Path, follow: bool
) -> list[str]:
    """The `ray job submit` command line."""
    ray = Path(sys.executable).with_name("ray")
    found = str(ray) if ray.exists() else shutil.which("ray")
    if found is None:
        raise ValueError("the `ray` command is not installed beside this Python; pip install ray")
    return [
        *(found, "job", "submit", "--address", address),
        *("--working-dir", str(working_dir)),
        *("--runtime-env-json", json.dumps({"excludes": EXCLUDED})),
        *([] if follow else ["--no-wait"]),
        *("--", "tdm-r1", "train", config_file, *overrides),
    ]
