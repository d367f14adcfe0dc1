"""The run folder: commands that survive a crash, images by content, a status never half written."""

import hashlib
import json
import multiprocessing
import os
import threading
from pathlib import Path

import numpy
import pytest

from services.config import RunConfig, config_from_tree
from services.run_store import commands
from services.run_store.files import write_whole
from services.run_store.images import ImageStore
from services.run_store.run_folder import RunFolder, create_run, find_run, list_runs

pytestmark = pytest.mark.unit


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A small config whose runs lie under the test's folder."""
    tree = {
        "run": {"dir": str(tmp_path / "runs"), "name": "toy"},
        "model": {"family": "toy", "teacher": "toy"},
        "prompts": {"train": "prompts.txt"},
        "rewards": [{"name": "up", "kind": "python:module:Class"}],
    }
    return config_from_tree(tree, "test", check_files=False)


def test_a_command_goes_from_requested_to_applied(tmp_path: Path) -> None:
    identity = commands.request(tmp_path, "pause")
    assert commands.read(tmp_path, identity).state == "requested"
    (seen,) = commands.unanswered(tmp_path)
    commands.answer(tmp_path, seen, "acknowledged")
    (seen,) = commands.unanswered(tmp_path)
    commands.answer(tmp_path, seen, "applied")
    assert commands.unanswered(tmp_path) == []
    assert list(commands.read(tmp_path, identity).times) == [
        "requested",
        "acknowledged",
        "applied",
    ]


def test_an_unknown_command_and_an_unknown_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown command 'explode'; allowed: pause"):
        commands.request(tmp_path, "explode")
    with pytest.raises(ValueError, match="no command 17"):
        commands.read(tmp_path, "17")


def test_many_writers_at_once_lose_no_command(tmp_path: Path) -> None:
    def ask() -> None:
        for _ in range(10):
            commands.request(tmp_path, "checkpoint")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = commands.unanswered(tmp_path)
    assert len(found) == 80
    assert [c.id for c in found] == sorted(c.id for c in found)


def _die_while_writing(folder: str) -> None:
    original = os.fsync

    def killed(descriptor: int) -> None:
        original(descriptor)
        os._exit(9)

    os.fsync = killed
    commands.request(Path(folder), "stop")


def test_a_writer_killed_in_the_middle_leaves_no_command_and_harms_no_other(tmp_path: Path) -> None:
    commands.request(tmp_path, "pause")
    process = multiprocessing.get_context("fork").Process(
        target=_die_while_writing, args=(str(tmp_path),)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert [c.type for c in commands.unanswered(tmp_path)] == ["pause"]


def test_a_file_that_is_no_command_is_rejected_and_not_met_again(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    (tmp_path / "commands" / "000.json").write_text('{"id": ')
    assert commands.unanswered(tmp_path) == []
    answered = commands.read(tmp_path, "000")
    assert answered.state == "rejected"
    assert "is not a command" in answered.reason
    assert commands.unanswered(tmp_path) == []


@pytest.mark.parametrize("name", ["run.json", "status.json", "summary.json"])
@pytest.mark.parametrize("content", [b'{"created_at": 1', b"[]", b"\xff", b"null"])
def test_a_run_that_cannot_be_read_hides_no_other(
    config: RunConfig, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    good, bad = create_run(config), create_run(config)
    (bad.path / name).write_bytes(content)
    assert list_runs(config.run.dir) == [good] == list_runs(config.run.dir)
    assert find_run(config.run.dir, "latest") == good
    (said,) = caplog.messages  # once, however often the list is asked for
    assert said.startswith(f"run {bad.id} is left out of the list: {bad.path / name} is not")


def test_a_run_without_a_beginning_is_left_out(config: RunConfig) -> None:
    good, bad = create_run(config), create_run(config)
    (bad.path / "run.json").write_text("{}")
    assert list_runs(config.run.dir) == [good]


@pytest.mark.parametrize(
    ("file", "start"),
    [("my config (copy)", "my-config-copy-"), ("?", "run-"), ("sd3.5_a", "sd3.5_a-")],
)
def test_a_config_files_name_becomes_one_that_an_address_can_have(config, file, start):
    nameless = config.model_copy(update={"run": config.run.model_copy(update={"name": None})})
    assert create_run(nameless, file).id.startswith(start)


def test_a_run_is_found_by_id_by_latest_and_by_folder(config: RunConfig) -> None:
    first, second = create_run(config), create_run(config)
    assert first.id != second.id
    assert first.id.startswith("toy-")
    runs = config.run.dir
    assert find_run(runs, "latest") == second
    assert find_run(runs, first.id) == first
    assert find_run(runs, str(first.path)) == first
    assert list_runs(runs) == [second, first]
    with pytest.raises(ValueError, match=r"no run 'other'.*the newest there: toy-"):
        find_run(runs, "other")
    assert "family: toy" in first.config.read_text()


def test_a_status_reader_never_sees_half_a_status(config: RunConfig) -> None:
    folder = create_run(config)
    assert folder.status() == {}
    stop = threading.Event()

    def write() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            folder.write_status({"state": "running", "iteration": count, "pad": "x" * 20_000})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [folder.status().get("iteration", 0) for _ in range(300)]
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert folder.status()["pid"] == os.getpid()
    assert not list(folder.path.glob(".*"))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["status.json"]


def test_equal_images_are_one_file_named_by_its_own_hash(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    pixels = numpy.arange(8 * 8 * 3, dtype=numpy.uint8).reshape(8, 8, 3)
    digest, again = store.add(pixels), store.add(pixels.copy())
    assert digest == again
    assert store.add(pixels[::-1].copy()) != digest
    assert len(list(tmp_path.glob("sha256/*/*.png"))) == 2
    assert hashlib.sha256(store.path(digest).read_bytes()).hexdigest() == digest


def test_the_image_index_leaves_out_a_line_still_being_written(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert list(store.index()) == []
    store.append([{"digest": "ab", "group_id": 1}, {"digest": "cd", "group_id": 2}])
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write(json.dumps({"digest": "ef"}))
    assert [line["digest"] for line in store.index()] == ["ab", "cd"]


def test_a_run_folder_says_where_everything_lies(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "toy-1")
    assert folder.id == "toy-1"
    assert {folder.metrics.name, folder.events.name} == {"metrics.jsonl", "events.log"}
    assert folder.summary() == {}
