"""Labels to files and back, by the command line against a live server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.commands import labels as commands
from services.label_client.client import LabelClient
from services.label_client.transfer import export_labels, import_labels
from services.labels.crowd import CrowdConfig
from services.labels.settings import NO_RATES, Settings
from tests.labels.live import ask, label_all, put_group
from tests.labels.people import make_key

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def database_url(one_database_url):
    return one_database_url


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        gold_rate=0,
        overlap_rate=0,
        rates=NO_RATES,
    )


@pytest.fixture
def admin(live_server, keys):
    with LabelClient(live_server, keys["admin"]) as client:
        ask(client)
        yield client


@pytest.fixture
def app_key(database, clock):
    return make_key(database, "service", clock(), "labels:on_behalf")


@pytest.fixture
def app_client(live_server, app_key, admin):
    with LabelClient(live_server, app_key) as client:
        yield client


@pytest.fixture
def as_key(monkeypatch):
    return lambda key: monkeypatch.setenv("TDMR1_LABELS_KEY", key)


def test_an_export_comes_with_its_manifest(admin, app_client, tmp_path):
    label_all(app_client, put_group(app_client, "g1"))
    manifest = export_labels(admin, tmp_path / "out", "jsonl", {"run_id": "run-7"})
    assert manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    rows = (tmp_path / "out/labels.jsonl").read_text().splitlines()
    assert [json.loads(row)["image_index"] for row in rows] == [0, 1]


def test_importing_ones_own_export_changes_nothing(admin, app_client, tmp_path):
    label_all(app_client, put_group(app_client, "g1"))
    export_labels(admin, tmp_path, "jsonl", {})
    report = import_labels(app_client, tmp_path / "labels.jsonl")
    assert report.counts == {"present": 2}
    assert len(list(admin.pages("/labels"))) == 2


def test_labels_from_elsewhere_are_stored_once_whatever_their_image_ids(
    admin, app_client, tmp_path
):
    group = put_group(app_client, "g1")
    row = {"label_id": "L0", "group_id": "g1", "annotator": "p_1", "value": "like", "note": "=1"}
    rows = [
        {**row, "image_index": 0, "image_id": "of the other server"},
        {**row, "image_index": 1, "value": "dislike"},
        {**row, "image_index": 7},
        {**row, "group_id": "nowhere", "image_index": 0},
        {"value": "like"},
        {**row, "image_index": 1, "retracted_at": "2026-01-01T00:00:00+00:00"},
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows) + "no json\n")
    report = import_labels(app_client, file)
    assert report.counts == {"new": 2, "refused": 4}
    told = {each["line"]: each["code"] for each in report.refusals}
    assert told == {3: "not-found", 4: "not-found", 5: "not-a-row", 7: "not-a-row"}
    assert import_labels(app_client, file).counts["same"] == 2
    stored = {label["image_id"]: label["value"] for label in admin.pages("/labels")}
    assert stored == {group.images[0].image_id: "like", group.images[1].image_id: "dislike"}
    assert {label["source"] for label in admin.pages("/labels")} == {"import"}


def test_a_row_that_makes_no_sense_is_refused_and_the_others_go_on(admin, app_client, tmp_path):
    put_group(app_client, "g1")
    row = {"group_id": "g1", "image_index": 0, "annotator": "p_1", "value": "like"}
    rows = [{**row, "value": "LIKE"}, {**row, "image_index": [0]}, {**row, "latency_ms": "x"}, row]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in rows))
    report = import_labels(app_client, file)
    assert report.counts == {"new": 1, "refused": 3}
    told = {each["line"]: (each["code"], each["detail"]) for each in report.refusals}
    assert (told[1][0], told[2][0], told[3][0]) == ("not-a-row", "not-found", "not-a-row")
    assert "value" in told[1][1]
    assert "like" in told[1][1]
    assert "latency_ms" in told[3][1]


def test_the_command_line_exports_counts_and_simulates(
    admin, app_client, live_server, keys, as_key, tmp_path, capsys
):
    for n in range(3):
        put_group(app_client, f"g{n}")
    as_key(keys["admin"])
    crowd = CrowdConfig(num_people=2, seed=1)
    commands.simulate(
        live_server, crowd, "python:tests.labels.test_crowd:half", None, 1.0, as_json=True
    )
    assert json.loads(capsys.readouterr().out)["groups"] == 3
    commands.stats(live_server, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["groups"]["ready"] == 3
    assert (found["labels"], found["reward_queue"]["depth"]) == (6, 3)
    commands.stats(live_server, as_json=False)
    assert "labels      6 by 3 people" in capsys.readouterr().out
    commands.export_labels(live_server, tmp_path, "csv", {"run_id": None}, as_json=False)
    assert capsys.readouterr().out == f"6 labels in {tmp_path / 'labels.csv'}\n"


def test_the_command_line_imports_and_tells_what_it_could_not(
    app_client, live_server, app_key, as_key, tmp_path, capsys
):
    put_group(app_client, "g1")
    file = tmp_path / "labels.jsonl"
    good = {"group_id": "g1", "image_index": 0, "annotator": "p", "value": "like"}
    file.write_text(json.dumps(good) + "\n")
    as_key(app_key)
    assert commands.import_labels(live_server, file, as_json=False) == 0
    file.write_text(json.dumps({**good, "value": "dislike"}) + "\n")
    assert commands.import_labels(live_server, file, as_json=False) == 1
    captured = capsys.readouterr()
    assert captured.out == (
        "1 new, 0 same, 0 present, 0 refused\n0 new, 0 same, 0 present, 1 refused\n"
    )
    assert "labels.jsonl:1: label-exists" in captured.err


def test_without_a_key_the_command_says_where_to_put_it(monkeypatch):
    monkeypatch.delenv("TDMR1_LABELS_KEY", raising=False)
    with pytest.raises(ValueError, match="TDMR1_LABELS_KEY"):
        commands.stats("http://127.0.0.1:1", as_json=False)


def test_a_service_that_refuses_or_is_away_and_a_file_that_is_not_there_are_named(
    live_server, keys, app_client, app_key, as_key, tmp_path
):
    as_key(keys["viewer"])
    with pytest.raises(ValueError, match=r"refuses the key in TDMR1_LABELS_KEY.*403 forbidden"):
        commands.export_labels(live_server, tmp_path, "csv", {}, as_json=False)
    as_key(app_key)
    with pytest.raises(ValueError, match=r"nowhere\.jsonl: No such file"):
        commands.import_labels(live_server, tmp_path / "nowhere.jsonl", as_json=False)
    with pytest.raises(ValueError, match="missing an 'http://' or 'https://' protocol"):
        commands.stats("nonsense", as_json=False)


def test_the_example_pushes_a_like_for_every_image(admin, app_client, live_server, app_key):
    group = put_group(app_client, "g1")
    code = (ROOT / "examples/push_likes.py").read_text()
    code = code.replace("http://127.0.0.1:8321", live_server)
    done = subprocess.run(
        [sys.executable, "-c", code, "g1"],
        env={**os.environ, "KEY": app_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    stored = {label["id"]: label["image_id"] for label in admin.pages("/labels")}
    assert set(done.stdout.split()) == set(stored)
    assert set(stored.values()) == {image.image_id for image in group.images}


def test_a_backup_is_restored_elsewhere(admin, app_client, settings, tmp_path, capsys):
    if not settings.url.startswith("sqlite"):
        pytest.skip("PostgreSQL has its own tools")
    label_all(app_client, put_group(app_client, "g1"))
    commands.backup(settings, tmp_path / "copy.db", as_json=False)
    elsewhere = Settings(data_dir=tmp_path / "elsewhere")
    commands.restore(elsewhere, tmp_path / "copy.db", verify=True, as_json=False)
    assert "restored 2 labels" in capsys.readouterr().out
