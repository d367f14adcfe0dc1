"""`tdm-r1 submit` against a cluster that was started as people start one: `ray start --head`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S, JOB_S = 180, 480


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(commands: Path) -> dict[str, str]:
    """This process's, with a token of the test's own, and `tdm-r1` on the path."""
    if not (BIN / "tdm-r1").exists():  # the tree is not installed here; run it from the job's copy
        script = commands / "tdm-r1"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m services.cli "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(commands), str(BIN), os.environ["PATH"]])
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-this-test-only-32"}
    return own | token | {"PATH": path, "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_S)}


@pytest.fixture(scope="module")
def cluster():
    """(jobs address, environment) of a Ray head; only its own processes are ended."""
    folder = Path(tempfile.mkdtemp(prefix="j", dir="/tmp"))  # short: sockets lie in it
    port, env = free_port(), environment(folder)
    command = [
        *(BIN / "ray", "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=4"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}", f"--temp-dir={folder}/r"),
        *(f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=100000000"),
        *("--disable-usage-stats", "--include-dashboard=true"),
    ]
    log = (folder / "log").open("w")
    with subprocess.Popen(
        [str(word) for word in command], env=env, stdout=log, stderr=log, start_new_session=True
    ) as head:
        try:
            wait_until_open(port, head, folder / "log")
            yield f"http://127.0.0.1:{port}", env
        finally:
            head.send_signal(signal.SIGTERM)  # `--block` ends what it started
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
            log.close()
            shutil.rmtree(folder, ignore_errors=True)


def wait_until_open(port: int, head: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def submit(cluster, *words: str) -> subprocess.CompletedProcess[str]:
    address, env = cluster
    command = [sys.executable, "-m", "services.cli", "submit", *words, "--address", address]
    return subprocess.run(
        [*command, "--working-dir", ".", "--follow"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=JOB_S,
    )


def test_a_submitted_job_trains_on_the_cluster_to_its_summary(cluster, tmp_path):
    overrides = [
        f"run.dir={tmp_path}",
        "run.iterations=2",
        "cluster={runtime: ray, placement: colocated, engine: torch, rollout_groups: 4}",
    ]
    answer = submit(cluster, "configs/toy.yaml", *overrides)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    summary = json.loads(next(tmp_path.glob("*/summary.json")).read_text())
    assert summary["state"] == "finished"
    assert summary["iterations"] == 2


def test_a_job_with_a_missing_file_fails_with_the_message(cluster, tmp_path):
    overrides = [f"run.dir={tmp_path}", "prompts.train=nowhere.txt"]
    answer = submit(cluster, "configs/toy.yaml", *overrides)
    assert answer.returncode != 0
    assert "prompts.train: no file" in answer.stdout + answer.stderr
