"""The command line: what it says, its exit codes, and what it does not import."""

import json
import subprocess
import sys
import threading
import time

import numpy
import pytest
import yaml
from typer.testing import CliRunner

from services.cli import app
from services.commands.progress import sparkline
from services.commands.submit import submission
from services.config import load_config
from services.run_store import commands
from services.run_store.images import ImageStore
from services.run_store.run_folder import create_run

pytestmark = pytest.mark.unit


@pytest.fixture
def toy_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("label 0\nlabel 1\n")
    tree = {
        "run": {"name": "toy", "dir": str(tmp_path / "runs"), "iterations": 1},
        "model": {"family": "toy", "teacher": "toy", "roles": "full"},
        "prompts": {"train": str(tmp_path / "prompts.txt")},
        "rewards": [{"name": "up", "kind": "python:services.reward.toy:UpperHalf"}],
        "cluster": {"runtime": "local", "engine": "torch"},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture
def run(toy_file):
    return create_run(load_config(toy_file))


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_imports_neither_torch_nor_ray():
    code = "import sys, services.cli; print([m for m in ('torch', 'ray') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_prune_makes_room_in_a_run_that_has_ended(run):
    store = ImageStore(run.images)
    about = {"policy_version": 0, "prompt_id": "p", "prompt": "p", "rewards": {}, "sample": 0}
    for step in range(3):
        digest = store.add(numpy.full((4, 4, 3), step, numpy.uint8))
        store.append([about | {"digest": digest, "step": step, "group_id": step}])
    prune = ("prune", run.path, "--last-iterations", 1, "--json")
    run.write_status({"state": "running"})
    assert f"run {run.id} is running and removes images by itself" in call(*prune).output
    run.write_status({"state": "finished"})
    assert "give --last-iterations, --max-bytes, or both" in call("prune", run.path).output
    assert "max_bytes" in call("prune", run.path, "--max-bytes", 0).output
    counted = json.loads(call(*prune, "--dry-run").stdout)
    assert len(list(run.images.rglob("*.png"))) == 3
    removed = json.loads(call(*prune).stdout)
    assert (removed["num_groups"], removed["num_images"]) == (2, 2)
    assert {**counted, "is_removed": True, "num_bytes_left": removed["num_bytes_left"]} == removed
    assert len(list(run.images.rglob("*.png"))) == 1
    assert "removed 0 images of 0 groups" in call("prune", run.path, "--max-bytes", 9).output


def test_help_names_every_command():
    shown = call("--help").output
    wanted = "demo train submit status logs pause unpause stop sample eval export prune distill"
    assert [name for name in [*wanted.split(), "doctor"] if f" {name} " not in shown] == []


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in app.registered_commands]
)
def test_every_command_has_help_without_heavy_imports(command):
    answer = call(command, "--help")
    assert answer.exit_code == 0, answer.output


def test_a_persons_mistake_is_one_message_and_exit_code_two(toy_file):
    answer = call("train", toy_file, "run.sed=3")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: override 'run.sed=3': unknown key")
    assert "Traceback" not in answer.stderr


def test_a_malformed_prompt_line_stops_before_any_worker(toy_file, tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "label 0"}\n{"prompt": \n')
    answer = call("train", toy_file, f"prompts.train={tmp_path / 'bad.jsonl'}")
    assert answer.exit_code == 2
    assert "bad.jsonl:2: not JSON" in answer.stderr
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_shows_config_placement_and_memory_and_starts_nothing(toy_file, tmp_path):
    answer = call("train", toy_file, "--dry-run", "--json", "cluster.runtime=ray")
    assert answer.exit_code == 0, answer.output
    shown = json.loads(answer.stdout)
    names = [process["name"] for process in shown["plan"]["processes"]]
    assert {"rollout-0", "surrogate", "generator", "reward-up-0", "replay"} <= set(names)
    assert shown["config"]["run"]["name"] == "toy"
    assert shown["plan"]["total_bytes"] > 0
    assert not (tmp_path / "runs").exists()


def test_train_runs_the_toy_world_to_its_summary(toy_file):
    answer = call("train", toy_file, "--json")
    assert "watch it: tdm-r1 dashboard --runs" in answer.stderr
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    assert summary["state"] == "finished"
    assert summary["iterations"] == 1


def test_status_shows_a_silent_run_as_silent(run, toy_file):
    run.write_status({"state": "running", "iteration": 3})
    answer = call("status", run.id, "--runs", run.path.parent, "--json")
    assert json.loads(answer.stdout)["state"] == "running"
    old = json.loads((run.path / "status.json").read_text()) | {"updated_at": time.time() - 90}
    (run.path / "status.json").write_text(json.dumps(old))
    shown = json.loads(call("status", run.id, "--runs", run.path.parent, "--json").stdout)
    assert shown["state"] == "silent"
    assert 89 < shown["age_s"] < 100
    assert "has died or hangs" in call("status", run.id, "--runs", run.path.parent).stdout


def test_status_says_what_a_run_has_raised_and_what_helps(run):
    alert = {"step": 40, "title": "up pays", "detail": "up rose", "remedy": "look at the images"}
    run.write_status({"state": "running", "alerts": [alert]})
    shown = call("status", run.id, "--runs", run.path.parent).stdout
    assert "ALERT since iteration 40: up pays" in shown
    assert "up rose; look at the images" in shown
    assert "running (alert)" in call("status", "--runs", run.path.parent).stdout
    assert json.loads(call("status", run.id, "--runs", run.path.parent, "--json").stdout)[
        "alerts"
    ] == [alert]


def test_status_without_a_run_lists_all(run):
    run.write_status({"state": "running"})
    shown = json.loads(call("status", "--runs", run.path.parent, "--json").stdout)
    assert [each["run_id"] for each in shown] == [run.id]


def test_logs_show_the_newest_lines(run):
    run.events.write_text("one\ntwo\nthree\n")
    assert call("logs", "--runs", run.path.parent, "-n", 2).stdout == "two\nthree\n"


def answer_when_asked(run, state, reason=""):
    def wait():
        while not (asked := commands.unanswered(run.path)):
            time.sleep(0.01)
        commands.answer(run.path, asked[0], state, reason)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_pause_waits_until_the_run_has_paused(run):
    run.write_status({"state": "running"})
    thread = answer_when_asked(run, "applied")
    answer = call("pause", "--runs", run.path.parent, "--json")
    thread.join()
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["state"] == "applied"


def test_a_refused_command_says_why(run):
    run.write_status({"state": "running"})
    thread = answer_when_asked(run, "rejected", "it is paused already")
    answer = call("pause", "--runs", run.path.parent)
    thread.join()
    assert answer.exit_code == 2
    assert "it is paused already" in answer.stderr


def test_a_run_that_has_ended_takes_no_command(run):
    run.write_status({"state": "finished"})
    answer = call("stop", "--runs", run.path.parent)
    assert answer.exit_code == 2
    assert "has ended" in answer.stderr


def test_a_run_that_is_not_there_names_those_that_are(run):
    answer = call("status", "other", "--runs", run.path.parent)
    assert answer.exit_code == 2
    assert run.id in answer.stderr


def test_sample_export_and_eval_need_a_checkpoint(run):
    for command in (["sample", "-p", "label 0"], ["export"]):
        answer = call(*command, "--runs", run.path.parent)
        assert answer.exit_code == 2
        assert "no checkpoint yet" in answer.stderr


def test_submit_hands_the_same_train_command_to_ray(tmp_path):
    line = submission("configs/a.yaml", ["run.seed=1"], "http://h:8265", tmp_path, False)
    assert line[1:3] == ["job", "submit"]
    assert line[line.index("--") + 1 :] == ["tdm-r1", "train", "configs/a.yaml", "run.seed=1"]
    assert "--no-wait" in line


def test_submit_refuses_a_config_that_would_not_travel(toy_file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    answer = call("submit", toy_file.name, "--working-dir", tmp_path / "elsewhere")
    assert answer.exit_code == 2


def test_doctor_finds_a_bad_config_and_its_remedy(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("run: {sed: 1}\n")
    answer = call("doctor", bad, "--json")
    findings = {finding["subject"]: finding for finding in json.loads(answer.stdout)}
    assert answer.exit_code == 1
    assert findings[str(bad)]["state"] == "problem"
    assert findings["torch"]["state"] == "ok"
    assert all(f["remedy"] for f in findings.values() if f["state"] != "ok")


def test_a_sparkline_rises_with_its_numbers():
    assert sparkline([0.0, None, 0.5, 1.0]) == "0.000 | =#| 1.000"
    assert sparkline([]) == ""


def test_sampling_from_a_folder_without_a_generator_says_what_it_looked_for(tmp_path):
    answer = call("sample", tmp_path, "--prompt", "a circle", "--out", tmp_path / "out")
    assert answer.exit_code != 0
    assert "is a folder, but no run, checkpoint or export" in answer.output.replace("\n", " ")
