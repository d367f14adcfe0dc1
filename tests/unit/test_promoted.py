"""A promoted checkpoint is found by its name and outlives those that a run keeps."""

import json
from pathlib import Path

import pytest

from services.commands.artifacts import find_generator
from services.commands.promote import promote as promote_command
from services.run_store import commands
from services.run_store.promoted import NoCheckpointError, promote, promoted, promotions
from services.run_store.run_folder import BrokenRunError
from tests.train_cases import Running, toy_run

pytestmark = pytest.mark.unit


def names(running: Running) -> list[str]:
    return sorted(path.name for path in running.folder.checkpoints.glob("step_*"))


def test_a_run_keeps_what_is_promoted_while_it_goes_on(tmp_path: Path, capsys) -> None:
    running = Running(toy_run(tmp_path, checkpoint={"keep": 1}, run={"iterations": 10**6}))
    commands.request(running.folder.path, "checkpoint")
    running.until(lambda _: names(running) != [])
    (first,) = names(running)
    promote_command("run", tmp_path, str(int(first.removeprefix("step_"))), True)
    assert json.loads(capsys.readouterr().out)["checkpoint"] == first
    at = running.folder.status()["iteration"]
    running.until(lambda status: status["iteration"] > at)
    commands.request(running.folder.path, "checkpoint")
    commands.request(running.folder.path, "stop")
    running.join()
    assert names(running)[0] == first
    assert len(names(running)) == 2  # and the newest
    where = running.folder.checkpoints / first
    assert find_generator("run", tmp_path, "promoted") == where
    assert find_generator("promoted", tmp_path, None) == where
    with pytest.raises(NoCheckpointError, match=f"no checkpoint '7777777'; it has .*{first}"):
        promote(running.folder, "7777777")
    newest = promote(running.folder, names(running)[1], "key:lead")
    assert promoted(running.folder) == newest
    assert [each.by for each in promotions(running.folder)] == ["", "key:lead"]
    (running.folder.path / "promoted.json").write_text('{"checkpoint": 1}')
    with pytest.raises(BrokenRunError, match=r"promoted.json is not what we write"):
        promoted(running.folder)


def test_without_a_promotion_nothing_is_found_and_the_remedy_is_told(tmp_path: Path) -> None:
    running = Running(toy_run(tmp_path, run={"iterations": 1}))
    running.join()
    with pytest.raises(ValueError, match="run run has no promoted checkpoint; tdm-r1 promote run"):
        find_generator("run", tmp_path, "promoted")
    with pytest.raises(ValueError, match=r"no run in .* has a promoted checkpoint"):
        find_generator("promoted", tmp_path, None)
