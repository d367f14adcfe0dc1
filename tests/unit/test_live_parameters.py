"""What a run may be told to change while it goes on: what is refused, and what a change does."""

import json
from pathlib import Path

import pytest

from services.commands.control import control, values_of
from services.config import load_config
from services.config_keys import dotted_keys
from services.run_store import commands
from services.run_store.arguments import LIVE, RefusedError, changed, checked, now
from services.run_store.run_folder import RunFolder
from tests.train_cases import Running, metrics, numbers, toy_run

pytestmark = pytest.mark.unit

ASYNC = {"replay": {"max_staleness_generator": 1, "max_staleness_surrogate": 3}}


def test_every_live_parameter_is_in_the_config_within_its_bounds():
    for path in sorted(Path("configs").glob("*.yaml")):
        if path.name.endswith("distill.yaml"):
            continue
        config = load_config(path, check_files=False)
        for key, parameter in LIVE.items():
            value = now(config, key)
            if value or parameter.lowest == 0:  # staleness 0 is on-policy, which does not change
                assert parameter.checked(value) == value, (path, key)
    assert LIVE.keys() <= set(dotted_keys(type(config)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "at least one key=value; keys: algorithm.generator.lr"),
        ({"algorithm.group_size": 8}, "cannot be set while a run goes on; allowed: algorithm.gen"),
        ({"algorithm.generator.lr": 0}, "allowed 1e-09 to 0.01"),
        ({"algorithm.generator.lr": True}, "lr=True: allowed"),
        ({"algorithm.generator.lr": "fast"}, "lr='fast': allowed"),
        ({"algorithm.generator.lr": float("nan")}, "lr=nan: allowed"),
        ({"checkpoint.every": 2.5}, "allowed 0 to 1e\\+06, whole"),
        ({"algorithm.replay.max_staleness_generator": 0}, "allowed 1 to 64, whole"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_is_allowed(tmp_path, arguments, said):
    with pytest.raises(RefusedError, match=said):
        commands.request(tmp_path, "set", arguments)
    assert commands.history(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"pool": "ocr"},
        {"pool": "ocr", "workers": 0},
        {"pool": "ocr", "workers": 1.5},
        {"pool": "ocr", "workers": True},
        {"pool": "ocr", "workers": "many"},
        {"pool": 3, "workers": 2},
        {"pool": "o\ud800cr", "workers": 2},
        {"pool": "ocr\n", "workers": 2},
        {"pool": "ocr", "workers": 2, "when": "now"},
    ],
)
def test_a_size_that_cannot_be_meant_is_refused(arguments):
    with pytest.raises(RefusedError, match=r"scale takes pool .* and workers \(1 to 1000, or"):
        checked("scale", arguments)


@pytest.mark.parametrize("workers", [3, 3.0, "3"])
def test_a_size_is_a_number_or_auto(workers):
    assert checked("scale", {"pool": "ocr", "workers": workers})["workers"] == 3
    assert checked("scale", {"pool": "ocr", "workers": "auto"})["workers"] == "auto"
    with pytest.raises(RefusedError, match="pause takes no arguments"):
        checked("pause", {"workers": 3})


def test_a_changed_config_is_checked_as_a_whole():
    config = toy_run(Path("runs"), algorithm=ASYNC)
    longer = changed(config, {"algorithm.replay.max_staleness_surrogate": 9})
    assert longer.algorithm.replay.max_staleness_surrogate == 9
    assert longer.model_dump(exclude={"algorithm"}) == config.model_dump(exclude={"algorithm"})
    with pytest.raises(RefusedError, match="the surrogate may be the staler reader"):
        changed(config, {"algorithm.replay.max_staleness_generator": 4})
    with pytest.raises(RefusedError, match="no evaluator"):
        changed(config, {"evaluation.every": 5})


def test_values_of_a_command_line_are_read_as_those_of_train():
    assert values_of(["checkpoint.every=5"]) == {"checkpoint.every": 5}
    assert checked("set", values_of(["algorithm.generator.lr=1e-5"])) == {
        "algorithm.generator.lr": 1e-5
    }
    with pytest.raises(ValueError, match=r"write it as key.subkey=value"):
        values_of(["checkpoint.every"])
    with pytest.raises(ValueError, match="twice"):
        values_of(["checkpoint.every=5", "checkpoint.every=6"])


def test_what_is_set_before_the_first_iteration_is_as_if_configured_so(tmp_path):
    values = {
        "algorithm.generator.lr": 2e-4,
        "algorithm.fake_score.lr": 1e-3,
        "algorithm.surrogate.lr": 1e-3,
        "algorithm.generator.reward_scale": 0.5,
        "algorithm.generator.reward_guidance": 1.5,
        "algorithm.generator.distillation_weight": 0.6,
        "algorithm.surrogate.regulariser": 0.1,
        "algorithm.fake_score.teacher_regulariser": 0.2,
    }
    start = toy_run(tmp_path, run={"iterations": 3})
    folder = RunFolder(tmp_path / "told")
    identity = commands.request(folder.path, "set", values, by="key:lead")
    told = Running(start, "told")
    told.join()
    assert commands.read(folder.path, identity).state == "applied"
    configured, as_it_was = Running(changed(start, values), "configured"), Running(start, "was")
    configured.join()
    as_it_was.join()
    assert _without_sets(told) == numbers(configured.folder) != numbers(as_it_was.folder)
    first, second, _ = metrics(folder)
    assert (first["set/algorithm.generator.lr"], first["generator/lr"]) == (2e-4, 2e-4)
    assert "set/algorithm.generator.lr" not in second
    (change,) = told.summary["changes"]
    assert (change["iteration"], change["by"], change["command"]) == (0, "key:lead", identity)
    assert change["values"]["algorithm.generator.lr"] == [5e-4, 2e-4]
    manifest = json.loads((Path(told.summary["checkpoint"]) / "manifest.json").read_text())
    assert folder.status()["changes"] == manifest["facts"]["changes"] == [change]
    assert configured.summary["changes"] == []


def _without_sets(running: Running) -> list[dict]:
    return [
        {name: value for name, value in line.items() if not name.startswith("set/")}
        for line in numbers(running.folder)
    ]


def test_a_run_that_goes_on_checkpoints_as_often_as_it_is_told_to(tmp_path, capsys):
    running = Running(toy_run(tmp_path, run={"iterations": 10**6}))
    running.until(lambda status: status.get("iteration", 0) >= 1)
    control("set", "run", tmp_path, 60, False, {"checkpoint.every": 2})
    assert "set run: applied" in capsys.readouterr().out
    running.until(lambda status: list(running.folder.checkpoints.glob("step_*")) != [])
    with pytest.raises(ValueError, match=r"refused to set: .*on-policy from its start to its end"):
        control("set", "run", tmp_path, 60, False, {"algorithm.replay.max_staleness_generator": 2})
    with pytest.raises(ValueError, match=r"refused to scale: .*upper_half.* 1 workers are fixed"):
        control("scale", "run", tmp_path, 60, False, {"pool": "upper_half", "workers": 1})
    with pytest.raises(ValueError, match=r"rollout: its 1 workers are fixed; .*runtime=ray may"):
        control("scale", "run", tmp_path, 60, False, {"pool": "rollout", "workers": 2})
    with pytest.raises(ValueError, match=r"no pool 'ocr' .*; allowed: rollout, upper_half"):
        control("scale", "run", tmp_path, 60, False, {"pool": "ocr", "workers": "auto"})
    control("stop", "run", tmp_path, 60, False)
    running.join()
    assert [list(change["values"]) for change in running.summary["changes"]] == [
        ["checkpoint.every"]
    ]


def test_staleness_may_be_set_in_an_async_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    values = {"algorithm.replay.max_staleness_surrogate": 1}
    commands.request(folder.path, "set", values)
    config = toy_run(tmp_path, run={"iterations": 8}, algorithm=ASYNC)
    running = Running(config)
    running.join()
    stale = [line.get("replay/staleness_surrogate_max", 0) for line in metrics(running.folder)]
    assert max(stale) <= 1
