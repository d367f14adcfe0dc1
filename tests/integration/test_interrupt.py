"""Ctrl-C, as a terminal sends it: to the run and to everything that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.run_store.run_folder import RunFolder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def session_members(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize(("runtime", "number"), [("ray", signal.SIGINT), ("local", signal.SIGTERM)])
def test_a_signal_ends_the_run_cleanly_and_leaves_no_process(
    tmp_path: Path, runtime: str, number: signal.Signals
) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-m", "tests.integration.interrupted_run", str(tmp_path), runtime]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 150
        while folder.path.exists() is False or folder.status().get("iteration", 0) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, number)
        assert process.wait(100) == 0
        summary = folder.summary()
        assert summary["state"] == "stopped"
        assert summary["reason"].startswith(number.name)
        assert (Path(summary["checkpoint"]) / "manifest.json").is_file()
        assert folder.status()["state"] == "stopped"
        while session_members(process.pid) and time.monotonic() < deadline + 120:
            time.sleep(0.2)
        assert session_members(process.pid) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
