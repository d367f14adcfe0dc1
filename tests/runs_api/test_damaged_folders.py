"""Folders that another hand has written into: what is wrong is said, nothing else suffers, and no
file but the run's own comes out."""

import json
import os
import shutil
import sqlite3
from functools import partial

import pytest
from PIL import Image

from services.run_store import commands
from services.run_store.images import ImageStore
from services.run_store.run_folder import BrokenRunError
from services.runs_api.library import Library
from services.web.pagination import pack
from tests.runs_api.people import bearer

pytestmark = pytest.mark.integration
VIEWER = bearer("viewer")
RUNS = "/api/v1/runs"
HALF = "\ud800"
"""Half of a character, which no answer can have in it."""
FAR = 1e300
"""A time that no calendar knows."""
IDENTITY = f"{1:020d}-deadbeef"


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def nested(depth):
    return {"a": nested(depth - 1)} if depth else {}


def into_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


DAMAGES = {
    "an error that is no text": lambda run: edit(run / "status.json", error=5),
    "half a character": lambda run: edit(run / "status.json", doing=HALF),
    "half a character in its origin": lambda run: edit(run / "run.json", config_hash=HALF),
    "too deep": lambda run: edit(run / "summary.json", deep=nested(300)),
    "numbers that are a folder": lambda run: into_folder(run / "metrics.jsonl"),
    "alerts that are a folder": lambda run: into_folder(run / "alerts.jsonl"),
    "a name with a space": lambda run: run.rename(run.with_name("my run")),
    "a name that is no text": lambda run: run.rename(run.with_name(os.fsdecode(b"bad\xff"))),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_takes_no_list_down_and_is_named(client, finished, settings, damage):
    run = finished.path.with_name("damaged")
    shutil.copytree(finished.path, run)
    damage(run)
    listed = client.get(RUNS, headers=VIEWER).json()["items"]
    assert [each["run_id"] for each in listed] == [finished.id]
    assert client.get("/api/v1/alerts", headers=VIEWER).json()["items"] == []
    assert client.get("/metrics").status_code == 200
    (name,) = Library(settings.runs).look_up()[1]
    assert name.encode()


@pytest.mark.parametrize(
    ("file", "content", "asked"),
    [
        (
            f"commands/{IDENTITY}.json",
            {"id": IDENTITY, "type": "stop", "times": {"requested": FAR}},
            "commands",
        ),
        (f"commands/{IDENTITY}.json", {"id": IDENTITY, "type": HALF, "times": {}}, "commands"),
        ("promoted.json", [{"checkpoint": "step_000006", "at": FAR, "by": ""}], "checkpoints"),
        ("checkpoints/step_000006/manifest.json", {"format": 1, "files": {}}, "checkpoints"),
        (
            "checkpoints/step_000006/manifest.json",
            {"format": 1, "facts": {"policy_version": "a"}, "files": {"a": {"bytes": -1}}},
            "checkpoints",
        ),
        (
            f"jobs/{IDENTITY}.json",
            {"id": IDENTITY, "checkpoint": "step_000006", "asked": {}, "key": "", "by": ""}
            | {"out": "exports/step_000006", "started_at": FAR, "state": "done"},
            "jobs",
        ),
        ("alerts.jsonl", {"id": "a", "title": HALF, "time": 1.0}, "alerts"),
        ("metrics.jsonl", {"time": 1, "step": 7, "policy_version": 7, HALF: 1.0}, "metrics"),
        ("images/index.jsonl", {"prompt": HALF}, "groups"),
        ("evaluations/folder.png/in_it", {}, "evaluations"),
    ],
)
def test_what_another_hand_wrote_is_no_fault_of_ours(client, finished, file, content, asked):
    path = finished.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if file == "images/index.jsonl":
        content = json.loads(path.read_text().splitlines()[0]) | content
    with path.open("a" if path.suffix == ".jsonl" else "w") as file:
        file.write(json.dumps(content) + "\n")
    for _ in range(2):  # a fault must not break what comes after it
        answer = client.get(f"{RUNS}/{finished.id}/{asked}", headers=VIEWER)
        assert answer.status_code in (200, 503), answer.text
        assert "is not what we write" in answer.text or answer.is_success


def test_a_command_of_another_name_is_answered_under_its_own(finished):
    path = finished.path / "commands" / f"{IDENTITY}.json"
    path.write_text(json.dumps({"id": "../../evil", "type": "stop", "times": {"requested": 1.0}}))
    written_at = path.stat().st_mtime
    assert commands.unanswered(finished.path) == []
    answered = commands.read(finished.path, IDENTITY)
    assert (answered.state, answered.times["requested"]) == ("rejected", written_at)
    assert not (finished.path.parent / "evil.json").exists()


def test_a_link_among_the_pictures_shows_no_other_file(client, finished, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("tdmr1_secret")
    store = ImageStore(finished.images)
    linked, written = (line["digest"] for line in store.index()[:2])
    store.path(linked).unlink()
    store.path(linked).symlink_to(secret)
    store.path(written).write_text("<script>alert(1)</script>")
    for digest in (linked, written):
        for size in ("orig", "256"):
            address = f"{RUNS}/{finished.id}/images/{digest}"
            answer = client.get(address, params={"size": size}, headers=VIEWER)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    evaluations = finished.path / "evaluations"
    evaluations.mkdir(exist_ok=True)
    (evaluations / "after.png").symlink_to(secret)
    listed = client.get(f"{RUNS}/{finished.id}/evaluations", headers=VIEWER)
    assert listed.json()["items"] == []


@pytest.mark.parametrize("name", ["events.log", "config.yaml"])
def test_a_link_in_place_of_a_text_shows_no_other_file(client, finished, tmp_path, name):
    path = finished.path / name
    path.rename(finished.path / "moved")
    path.symlink_to("moved")
    assert client.get(f"{RUNS}/{finished.id}", headers=VIEWER).status_code == 200
    path.unlink()
    (tmp_path / "secret").write_text("tdmr1_secret")
    path.symlink_to(tmp_path / "secret")
    answer = client.get(f"{RUNS}/{finished.id}/events", headers=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "is a link out of the run's folder" in answer.json()["detail"]


def stored(run, png):
    store = ImageStore(run.images)
    digest = store.add_file(png)
    store.append([store.index()[0] | {"group_id": 999, "digest": digest}])
    return digest


def test_half_a_picture_has_no_thumbnail(client, finished):
    digest = stored(finished, b"\x89PNG\r\n\x1a\n and no more")
    address = f"{RUNS}/{finished.id}/images/{digest}"
    assert client.get(address, headers=VIEWER).status_code == 200
    answer = client.get(address, params={"size": "256"}, headers=VIEWER)
    assert (answer.status_code, answer.json()["code"]) == (422, "no-thumbnail")


def test_thumbnails_that_cannot_be_kept_are_shown_all_the_same(
    client, finished, settings, tmp_path
):
    picture = tmp_path / "large.png"
    Image.new("RGB", (600, 600)).save(picture)
    digest = stored(finished, picture.read_bytes())
    settings.cache.write_text("a file where the cache's folder would be")
    address = f"{RUNS}/{finished.id}/images/{digest}"
    for _ in range(2):
        answer = client.get(address, params={"size": "256"}, headers=VIEWER)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")


def test_an_index_that_a_full_disk_cut_off_is_made_anew(finished, settings):
    run = Library(settings.runs).find(finished.id)
    with run.images() as index:
        index._database.execute("PRAGMA max_page_count = 1")  # as many as there are, and no more
        before = index.count()
    line = run.store.index()[0]
    run.store.append(line | {"group_id": number} for number in range(1000, 2000))
    with pytest.raises(sqlite3.OperationalError, match="full"), run.images():
        pass
    with run.images() as index:
        assert index.count() == before + 1000


def test_a_run_that_was_deleted_is_gone_and_not_new(finished, settings):
    run = Library(settings.runs).find(finished.id)
    looks = [run.facts, *(partial(_enter, look) for look in (run.glance, run.numbers, run.images))]
    for look in looks:
        look()
    shutil.rmtree(finished.path)
    for look in looks:
        with pytest.raises(BrokenRunError, match="is gone: the run was deleted or moved"):
            look()


def _enter(look):
    with look():
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_is_not_ours_to_read_is_none(client, finished):
    finished.path.chmod(0)
    try:
        assert client.get(f"{RUNS}/{finished.id}", headers=VIEWER).status_code == 404
        assert client.get(RUNS, headers=VIEWER).json()["items"] == []
    finally:
        finished.path.chmod(0o700)


def test_another_run_of_the_same_name_is_read_from_its_start(finished, settings):
    run = Library(settings.runs).find(finished.id)
    with run.numbers() as table:
        before = list(table.steps)
    with run.images() as index:
        assert index.count()
    shutil.rmtree(finished.images)
    edit(finished.path / "run.json", created_at=1.0e9)
    line = json.loads(finished.metrics.read_text().splitlines()[0])
    lines = [json.dumps(line | {"step": step}) for step in range(101, 131)]  # more than it had
    finished.metrics.write_text("\n".join(lines) + "\n")
    with run.numbers() as table:
        assert list(table.steps) == list(range(101, 131)) != before
    with run.images() as index:
        assert not index.count()


@pytest.mark.parametrize("score", [10**100, float("nan"), float("inf"), True])
def test_no_cursor_is_a_fault(client, finished, score):
    params = {"sort": "best", "reward": "upper_half", "cursor": pack([score, 1])}
    answer = client.get(f"{RUNS}/{finished.id}/groups", params=params, headers=VIEWER)
    assert answer.status_code in (200, 400)
