"""Jobs: the command lines, the refusals, and what becomes of a process."""

import fcntl
import json
import subprocess
import sys
import time

import pytest
from pydantic import ValidationError

from services.run_store.run_folder import BrokenRunError, RunFolder
from services.runs_api.job_runner import LEASH, JobRunner
from services.runs_api.jobs import (
    ExportIn,
    SampleIn,
    command_of,
    complaint,
    history,
    leftovers,
    log_of,
    planned,
    record,
)
from services.runs_api.settings import Settings
from services.web.problems import Problem

NAME = "step_000006"


@pytest.fixture
def run(tmp_path):
    """A run with one checkpoint that no process can read."""
    folder = RunFolder(tmp_path / "toy-1")
    (folder.checkpoints / NAME).mkdir(parents=True)
    (folder.checkpoints / NAME / "manifest.json").write_text("{}")
    return folder


def until_ended(run):
    for _ in range(500):
        (job,) = history(run)
        if job.state != "running":
            return job
        time.sleep(0.02)
    raise AssertionError("it runs on")


def test_an_export_is_the_command_line_s(run):
    job = planned(run, NAME, ExportIn(), "key:a", "k")
    assert command_of(run, job) == [
        *(sys.executable, "-m", "services.cli", "export"),
        str(run.checkpoints / NAME),
        f"--out={run.path}/exports/{NAME}",
        "--json",
    ]


@pytest.mark.parametrize("prompt", ["--out=/etc", "-n 99", "$(reboot); `id`", "--", "'\"\\ \u2028"])
def test_a_hostile_prompt_is_one_word_and_stays_a_prompt(run, prompt):
    job = planned(run, NAME, SampleIn(prompt=prompt, num_images=2, seed=3), "key:a", "k")
    words = command_of(run, job)
    assert words[4:] == [
        str(run.checkpoints / NAME),
        f"--out={run.path}/samples/{job.id}",
        "--json",
        f"--prompt={prompt}",
        "--num-images=2",
        "--seed=3",
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {"prompt": ""},
        {"prompt": "a\0b"},
        {"prompt": "a\nb"},
        {"prompt": "a\ud800"},
        {"prompt": "x" * 1001},
        {"prompt": "a", "num_images": 17},
        {"prompt": "a", "num_images": 0},
        {"prompt": "a", "out": "/tmp"},
    ],
)
def test_what_cannot_be_drawn_is_refused(asked):
    with pytest.raises(ValidationError):
        SampleIn.model_validate(asked)


@pytest.mark.parametrize("name", ["step_000007", "../toy-1", f"./{NAME}", "", "/", "--help"])
def test_a_checkpoint_is_looked_up_and_never_a_path(run, name):
    with pytest.raises(Problem, match=f"has no checkpoint .*; it has {NAME}") as refusal:
        planned(run, name, ExportIn(), "key:a", "k")
    assert refusal.value.status == 404


def test_an_export_that_is_there_is_not_overwritten(run):
    (run.path / "exports" / NAME).mkdir(parents=True)
    with pytest.raises(Problem, match="is there already and is not overwritten"):
        planned(run, NAME, ExportIn(), "key:a", "k")


def test_jobs_are_on_at_loopback_and_otherwise_only_if_it_is_said():
    assert Settings().jobs
    assert not Settings(host="0.0.0.0").jobs
    assert not Settings(jobs=False).jobs
    assert Settings(host="10.0.0.1", jobs=True).jobs
    assert not Settings.model_validate(Settings(host="::").model_dump(mode="json")).jobs


def test_where_jobs_are_off_nothing_is_written(run):
    with pytest.raises(Problem, match="starts no jobs") as refusal:
        JobRunner(is_on=False, limit_s=1).start(run, NAME, ExportIn(), "key:a", "k")
    assert refusal.value.status == 403
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints"]


def test_a_process_is_told_by_its_last_line():
    lines = ["Traceback", "ValueError: no CUDA; key tdmr1_" + "a" * 16 + "_" + "b" * 43, " "]
    said = complaint(1, 5, lines)
    assert said.startswith("ValueError: no CUDA")
    assert said.endswith("(exit status 1)")
    assert "b" * 43 not in said
    assert "longer than max_job_s=5 s" in complaint(None, 5, lines)
    assert complaint(0, 5, lines) == ""
    assert "it said nothing" in complaint(-9, 5, [])


def test_one_job_at_a_time_bounded_and_once_a_key(run):
    runner = JobRunner(is_on=True, limit_s=0.3)
    job = runner.start(run, NAME, ExportIn(), "key:a", "k")
    assert [each.state for each in history(run)] == ["running"]
    assert runner.start(run, NAME, ExportIn(), "key:a", "k") == job
    with pytest.raises(Problem, match="export of step_000006 is running; wait for it"):
        runner.start(run, NAME, SampleIn(prompt="a"), "key:a", "other")
    with pytest.raises(Problem, match="use a fresh key"):
        runner.start(run, NAME, SampleIn(prompt="a"), "key:a", "k")
    ended = until_ended(run)
    assert ended.state == "failed"
    assert "longer than max_job_s=0.3 s" in ended.reason
    assert not (run.path / job.out).exists()
    assert ended.by == "key:a"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_keeps_no_later_job_waiting(run, monkeypatch):
    runner = JobRunner(True, 30)
    with monkeypatch.context() as broken:
        broken.setattr("services.runs_api.job_runner.complaint", lambda *_: 1 / 0)
        runner.start(run, NAME, SampleIn(prompt="x"), "key:a", "k")
        assert until_ended(run).state == "failed"
    deadline = time.monotonic() + 10
    while True:
        try:
            runner.start(run, NAME, SampleIn(prompt="x"), "key:a", "another")
            break
        except Problem:
            assert time.monotonic() < deadline
    while any(job.state == "running" for job in history(run)):
        assert time.monotonic() < deadline + 30


def test_a_job_of_a_dashboard_that_is_gone_does_not_look_alive(run):
    job = planned(run, NAME, ExportIn(), "key:a", "k")
    record(run, job.id).parent.mkdir()
    record(run, job.id).write_text(job.model_dump_json())
    for _ in ("without a log", "with one"):
        (lost,) = history(run)
        assert (lost.state, lost.reason) == ("failed", "its dashboard ended before it")
        assert history(run) == [lost]  # or pages would draw it anew and anew
        log_of(run, job).touch()
    record(run, job.id).write_text(json.dumps({"id": "../../etc"}))
    with pytest.raises(BrokenRunError, match="changed by hand"):
        history(run)


def test_what_a_dashboard_that_was_killed_left_of_a_job_is_no_obstacle(run):
    """One half of an export and one of a sample; what is whole, or not a job's, stays."""
    by_hand = run.path / "exports" / "step_000001"
    asked = {"export": ExportIn(), "sample": SampleIn(prompt="x")}
    jobs = {name: planned(run, NAME, each, "key:a", name) for name, each in asked.items()}
    record(run, jobs["export"].id).parent.mkdir()
    for job in jobs.values():
        record(run, job.id).write_text(job.model_dump_json())
    halves = [run.path / job.out for job in jobs.values()]
    for folder in (by_hand, *halves):
        folder.mkdir(parents=True)
        (folder / "generator.safetensors").write_text("half")
    with log_of(run, jobs["export"]).open("xb") as log:  # another dashboard is at it
        fcntl.flock(log, fcntl.LOCK_EX)
        assert leftovers(run) == halves[1:]
    card = halves[0] / "tdm_r1.json"  # written last
    card.write_text("{}")
    assert leftovers(run) == halves[1:]
    card.unlink()
    assert leftovers(run) == halves
    runner = JobRunner(is_on=True, limit_s=0.3)
    runner.start(run, NAME, ExportIn(), "key:a", "again")
    assert [path.exists() for path in halves] == [True, False]
    assert not any(halves[0].iterdir())  # it begins anew
    assert by_hand.exists()
    while any(job.state == "running" for job in history(run)):
        time.sleep(0.02)


def test_a_leash_that_is_let_go_ends_the_whole_group():
    sleeper = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-m", LEASH, sys.executable, "-c", sleeper],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leash:
        assert int(leash.stdout.readline()) != leash.pid
        leash.stdin.close()
        assert leash.stdout.read() == b""  # nobody holds its other end any more
        assert leash.wait(10) == -9
