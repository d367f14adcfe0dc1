"""A run in its own process, steered from outside as a person would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TDM_R1 = [sys.executable, "-m", "services.cli"]
PATIENCE_S = 120


@pytest.fixture
def run(tmp_path):
    """A toy run that would go on for ever, once it is running."""
    command = [*TDM_R1, "train", "configs/toy.yaml", f"run.dir={tmp_path}", "run.iterations=999999"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_for(lambda: status(tmp_path).get("iteration", 0) > 0)
            yield process
        finally:
            process.kill()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def status(runs):
    for path in runs.glob("*/status.json"):
        return json.loads(path.read_text())
    return {}


def tell(runs, command):
    line = [*TDM_R1, command, "latest", "--runs", str(runs), "--json"]
    answer = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)["state"]


def test_a_run_is_paused_goes_on_and_is_stopped_by_commands(run, tmp_path):
    assert tell(tmp_path, "pause") == "applied"
    wait_for(lambda: status(tmp_path)["state"] == "paused")
    before = status(tmp_path)["iteration"]
    time.sleep(0.5)
    assert status(tmp_path)["iteration"] == before
    assert tell(tmp_path, "unpause") == "applied"
    wait_for(lambda: status(tmp_path)["iteration"] > before)
    assert tell(tmp_path, "stop") == "applied"
    assert run.wait(PATIENCE_S) == 0
    assert status(tmp_path)["state"] == "stopped"
    assert list(tmp_path.glob("*/checkpoints/step_*/manifest.json"))


def test_ctrl_c_ends_a_run_cleanly_with_130(run, tmp_path):
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(PATIENCE_S) == 130
    assert status(tmp_path)["state"] == "stopped"
    assert "Traceback" not in run.stderr.read()
    assert next(tmp_path.glob("*/summary.json"))
