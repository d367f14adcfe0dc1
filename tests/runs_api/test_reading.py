"""What a run has written comes out as it was written: numbers, groups, images, checkpoints."""

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from services.config import RetentionConfig
from services.run_store.images import ImageStore
from services.run_store.retention import Retention
from services.run_store.run_folder import RunFolder
from services.runs_api.positions import Position
from services.runs_api.watching import since
from services.train import train
from tests.runs_api.people import bearer
from tests.train_cases import HELD_OUT, metrics, toy_run

pytestmark = pytest.mark.integration
VIEWER = bearer("viewer")
API = "/api/v1"


@pytest.fixture
def get(client, finished):
    """Asks about the finished run as a viewer."""

    def get_(path="", status=200, headers=VIEWER, **params):
        answer = client.get(f"{API}/runs/{finished.id}{path}", headers=headers, params=params)
        assert answer.status_code == status, answer.text
        return answer

    return get_


def test_a_finished_run_says_what_it_came_to(client, get, finished):
    run = get().json()
    assert (run["state"], run["iteration"], run["iterations"]) == ("finished", 6, 6)
    assert run["summary"] == finished.summary()
    workers = get("/workers").json()["items"]
    assert all(worker["since"] and worker["heard_at"] for worker in workers)
    assert [worker["gpus"] for worker in workers] == [[]] * len(workers)
    assert [
        each["run_id"] for each in client.get(f"{API}/runs", headers=VIEWER).json()["items"]
    ] == [finished.id]


def test_a_run_that_cannot_be_read_takes_no_list_down(client, finished):
    broken = finished.path.parent / "broken"
    broken.mkdir()
    (broken / "run.json").write_text('{"run_id": "bro')
    runs = client.get(f"{API}/runs", headers=VIEWER)
    assert [each["run_id"] for each in runs.json()["items"]] == [finished.id]
    assert client.get(f"{API}/alerts", headers=VIEWER).json()["items"] == []
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "status", ['{"state"', '{"state": "resting", "updated_at": 1.0}', '{"state": "running"}']
)
def test_a_run_that_was_changed_by_hand_says_what_is_wrong_with_it(get, finished, status):
    (finished.path / "status.json").write_text(status)
    for path in ("", "/workers", "/alerts"):
        assert f"{finished.path / 'status.json'} is not" in get(path, 503).json()["detail"]
    get("/metrics")
    assert [each.topic for each in since(finished, Position())][-1] == "status"


def test_a_run_whose_news_are_old_is_silent_and_its_workers_unknown(get, finished):
    finished.write_status({**finished.status(), "state": "running"})
    path = finished.path / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"updated_at": 1.0e9}))
    run = get().json()
    assert (run["state"], run["last_state"]) == ("silent", "running")
    assert {worker["state"] for worker in get("/workers").json()["items"]} == {"unknown"}
    assert [alert["rule"] for alert in get("/alerts").json()["items"]] == ["silent"]


def test_numbers_are_those_of_the_file_at_their_iterations(get, finished):
    name = "reward/upper_half/mean"
    lines = metrics(finished)
    (series,) = get("/metrics", names=name).json()["series"]
    assert series["values"] == [line[name] for line in lines]
    assert series["steps"] == [line["step"] for line in lines]
    assert series["policy_versions"] == [line["policy_version"] for line in lines]
    cut = get("/metrics", names=name, **{"from": 2, "to": 3}).json()["series"][0]
    assert cut["steps"] == [2, 3]


def test_new_lines_appear_without_reading_the_old_ones_again(get, finished):
    assert get("/metrics").json()["last_step"] == 6
    with finished.metrics.open("a") as file:
        file.write('{"time": 1, "step": 7, "policy_version": 7, "surrogate_version": 7, "x": null}')
        file.flush()
        assert get("/metrics").json()["last_step"] == 6
        file.write("\n")
    view = get("/metrics", names="x").json()
    assert (view["last_step"], view["series"][0]["values"]) == (7, [None])


def test_a_torn_line_costs_itself_alone(get, finished):
    before = [line["step"] for line in metrics(finished)]
    for path in (finished.metrics, finished.alerts):
        with path.open("a") as file:
            file.write('{"time": 1, "st\n')
    with finished.metrics.open("a") as file:
        file.write('{"time": 1, "step": 7, "policy_version": 7, "surrogate_version": 7}\n')
    assert get("/alerts").json()["items"] == []
    steps = get("/metrics", names="reward/upper_half/mean").json()["series"][0]["steps"]
    assert steps == before
    assert get("/metrics").json()["last_step"] == 7


def test_a_line_that_lacks_what_it_must_have_costs_itself_alone(client, get, finished):
    index = ImageStore(finished.images).index_path
    before = get("/groups").json()["items"]
    for path in (finished.metrics, finished.alerts, index):
        with path.open("a") as file:
            file.write('{"time": "noon", "reward/upper_half/mean": 9.0, "id": 3}\n')
    view = get("/metrics", names="reward/upper_half/mean").json()
    assert (view["last_step"], view["num_skipped"]) == (6, 1)
    assert get("/groups").json()["items"] == before
    assert get("/alerts").json()["items"] == []
    assert client.get("/metrics").status_code == 200
    assert [each.topic for each in since(finished, Position())][:2] == ["metrics", "groups"]


def test_a_name_that_nobody_told_is_an_error_that_helps(get):
    problem = get("/metrics", 422, names="reward/upper_half/maen").json()
    assert "'reward/upper_half/maen'" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "query:names"


def test_what_has_not_changed_is_not_sent_again(get, finished):
    for path in ("/metrics", "/workers", "/checkpoints", "/evaluations", "/groups/0"):
        tag = get(path).headers["etag"]
        assert get(path, 304, VIEWER | {"If-None-Match": tag}).content == b""
    tag = get("/metrics").headers["etag"]
    with finished.metrics.open("a") as file:
        file.write('{"time": 1, "step": 7, "policy_version": 7, "surrogate_version": 7}\n')
    get("/metrics", 200, VIEWER | {"If-None-Match": tag})


def test_groups_come_page_by_page_with_every_image_that_is_stored(get, finished):
    stored = ImageStore(finished.images).index()
    found, cursor = [], None
    while True:
        page = get(
            "/groups", limit=5, sort="oldest", **({"cursor": cursor} if cursor else {})
        ).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    told = [
        (group["group_id"], i["sample"], i["sha256"]) for group in found for i in group["images"]
    ]
    assert told == [(line["group_id"], line["sample"], line["digest"]) for line in stored]
    assert all(group["images"][0]["rewards"]["upper_half"]["state"] == "ready" for group in found)


def test_the_next_page_is_in_the_link_header(get, client):
    first = get("/groups", limit=3)
    path = first.headers["link"].partition(">")[0].removeprefix("<")
    second = client.get(path, headers=VIEWER).json()["items"]
    assert not {g["group_id"] for g in second} & {g["group_id"] for g in first.json()["items"]}


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"sort": "best"}, 422),
        ({"min_reward": 1}, 422),
        ({"sort": "prettiest"}, 422),
        ({"cursor": "bm9uZQ=="}, 400),
        ({"cursor": "WyJhIiwgMV0="}, 400),
        ({"cursor": "WzEsIDIsIDNd"}, 400),
        ({"limit": 501}, 422),
        ({"min_reward": "nan", "reward": "upper_half"}, 422),
    ],
)
def test_a_wrong_question_is_refused(get, params, status):
    assert get("/groups", status, **params).json()["status"] == status


def test_an_image_is_the_file_of_its_digest_and_nothing_can_sniff_it(get):
    digest = get("/groups/0").json()["images"][0]["sha256"]
    answer = get(f"/images/{digest}")
    assert hashlib.sha256(answer.content).hexdigest() == digest
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    get(f"/images/{digest}", 304, VIEWER | {"If-None-Match": answer.headers["etag"]})


def test_what_an_image_was_predicted_to_be_is_served_too(get):
    group = get("/groups/0").json()
    assert len(group["sigmas"]) == 5
    for image in group["images"]:
        assert len(image["predictions"]) == 3
        for digest in image["predictions"]:
            assert hashlib.sha256(get(f"/images/{digest}").content).hexdigest() == digest
        assert image["rewards"]["upper_half"]["version"] == "1"
        assert image["rewards"]["upper_half"]["latency_s"] > 0


def test_what_happened_to_a_group_is_told_from_its_making_to_its_end(get, finished):
    events = get("/groups/8/history").json()["items"]
    assert [event["event"] for event in events] == [
        "generated",
        "judged",
        "surrogate",
        "generator",
        "left",
    ]
    assert [event["policy_version"] for event in events] == [2, 2, 2, 2, 3]
    judged, drawn = events[1], events[2]
    images = get("/groups/8").json()["images"]
    values = [[image["rewards"]["upper_half"]["value"]] for image in images]
    assert judged["values"][: len(images)] == values
    assert len(drawn["advantages"]) == 16
    assert sum(row[-1] for row in drawn["advantages"]) == pytest.approx(0, abs=1e-4)
    assert get("/groups/4/history", 404).json()["code"] == "group-not-found"
    with finished.groups.open("a") as file:
        file.write('{"time": 1, "group_id": 8, "event": "eaten", "policy_version": 3}\n')
    assert get("/groups/8/history").json()["items"] == events


def test_a_run_of_old_has_groups_without_a_history(get, finished):
    finished.groups.unlink()
    assert get("/groups/8/history").json()["items"] == []


def test_a_run_of_old_has_images_without_predictions(get, finished):
    path = ImageStore(finished.images).index_path
    new = ("predictions", "sigmas")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        assert all(line.pop(name) for name in new)
        for name in ("parts", "latency_s"):
            del line["rewards"]["upper_half"][name]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    group = get("/groups/0").json()
    assert (group["sigmas"], [image["predictions"] for image in group["images"]]) == ([], [[]] * 4)
    old = group["images"][0]["rewards"]["upper_half"]
    assert (old["parts"], old["latency_s"]) == ({}, None)


def store_large(run):
    store = ImageStore(run.images)
    large = np.random.default_rng(0).integers(0, 255, (600, 300, 3), dtype=np.uint8)
    digest = store.add(large)
    store.append([store.index()[0] | {"group_id": 999, "digest": digest}])
    return digest


def test_a_thumbnail_is_made_once_and_small_images_stay_as_they_are(get, finished, settings):
    digest = store_large(finished)
    answer = get(f"/images/{digest}", size="256")
    assert Image.open(io.BytesIO(answer.content)).size == (128, 256)
    assert answer.headers["content-type"] == "image/webp"
    (made,) = settings.cache.rglob("*.webp")
    before = made.stat().st_mtime_ns
    get(f"/images/{digest}", size="256")
    assert made.stat().st_mtime_ns == before
    small = get("/groups/0").json()["images"][0]["sha256"]
    assert get(f"/images/{small}", size="512").headers["content-type"] == "image/png"


def test_a_removed_image_leaves_a_tombstone(get, finished):
    image = get("/groups/0").json()["images"][0]
    assert not image["is_removed"]
    ImageStore(finished.images).path(image["sha256"]).unlink()
    assert get(f"/images/{image['sha256']}", 410).json()["code"] == "image-removed"
    assert get("/groups/0").json()["images"][0]["is_removed"]


def test_an_image_that_retention_removed_says_so(get, finished):
    before = get("/groups/0").json()["images"]
    assert get("/groups/0").json()["images"][0]["removed_by"] is None
    Retention(finished, RetentionConfig(last_iterations=1)).apply()
    store = ImageStore(finished.images)
    digests = {digest for i in before for digest in (i["sha256"], *i["predictions"])}
    gone = {digest for digest in digests if not store.path(digest).exists()}
    for digest in digests:
        get(f"/images/{digest}", 410 if digest in gone else 200)
    problem = get(f"/images/{gone.pop()}", 410).json()
    assert problem["code"] == "image-removed"
    assert "removed by retention (last_iterations=1)" in problem["detail"]
    after = get("/groups/0").json()["images"]
    assert any(image["is_removed"] for image in after)  # newer groups show some of them, too
    for image in after:
        assert image["is_removed"] == (image["removed_by"] == "last_iterations=1")
    newest = get("/groups", limit=1).json()["items"][0]["images"][0]
    assert (newest["is_removed"], newest["removed_by"]) == (False, None)
    get(f"/images/{newest['sha256']}")


def test_no_thumbnail_outlives_its_image(get, finished, settings):
    digest = store_large(finished)
    tags = {size: get(f"/images/{digest}", size=size).headers["etag"] for size in ("256", "512")}
    assert len(list(settings.cache.rglob("*.webp"))) == 2
    ImageStore(finished.images).path(digest).unlink()
    for size, tag in tags.items():
        get(f"/images/{digest}", 410, VIEWER | {"If-None-Match": tag}, size=size)
        assert get(f"/images/{digest}", 410, size=size).json()["code"] == "image-removed"
    assert not list(settings.cache.rglob("*.webp"))


def test_another_runs_image_is_not_served(client, get, finished, trained):
    other = trained.path.parent / "elsewhere"
    digest = ImageStore(other / "images").add(np.zeros((4, 4, 3), dtype=np.uint8))
    shutil.copytree(other / "images/sha256", finished.images / "sha256", dirs_exist_ok=True)
    assert get(f"/images/{digest}", 404).json()["code"] == "image-not-found"


@pytest.mark.parametrize(
    "path",
    [
        "/images/../../config.yaml",
        "/images/%2e%2e%2fconfig.yaml",
        "/images/" + "A" * 64,
        "/images/" + "a" * 63,
        "/groups/-1",
        "/groups/x",
        "/commands/../status",
    ],
)
def test_no_address_reaches_a_file(get, path):
    assert get(path, 404).headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("run_id", ["..", ".", "%2e%2e", "a%2fb", "..%2f..", "x" * 200, "nope"])
def test_no_run_id_is_a_path(client, finished, run_id):
    answer = client.get(f"{API}/runs/{run_id}/metrics", headers=VIEWER)
    assert answer.status_code in (404, 422)


def test_a_checkpoint_is_promoted_by_an_admin_and_listed_so(client, get, finished):
    address = f"/api/v1/runs/{finished.id}/promoted"
    (before,) = get("/checkpoints").json()["items"]
    assert before["promoted_at"] is before["promoted_by"] is None

    def ask(name, role="admin"):
        return client.put(address, json={"checkpoint": name}, headers=bearer(role))

    assert ask(before["name"], "viewer").status_code == 403
    missing = ask("step_999999")
    assert (missing.status_code, missing.json()["code"]) == (404, "checkpoint-not-found")
    assert before["name"] in missing.json()["detail"]
    assert ask("../step_000006").status_code == 422
    (after,) = ask(before["name"]).json()["items"]
    assert after["promoted_by"] == "key:admin"
    assert get("/checkpoints").json()["items"] == [after]


def test_checkpoints_tell_their_files_digests(get, finished):
    (checkpoint,) = get("/checkpoints").json()["items"]
    assert (checkpoint["iteration"], checkpoint["policy_version"]) == (6, 6)
    for file in checkpoint["files"]:
        content = (finished.checkpoints / checkpoint["name"] / file["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    assert checkpoint["bytes"] == sum(file["bytes"] for file in checkpoint["files"])
    assert checkpoint["labels"] == {"answers": 0, "votes": 0, "newest_label": None}


def test_a_histogram_counts_what_is_stored(get, finished):
    counts = get("/histogram", reward="upper_half", bins=2).json()["counts"]
    assert sum(counts) == len(ImageStore(finished.images).index())


@pytest.fixture
def of_evaluated(client, settings):
    """Asks about a run of two iterations with held-out images."""
    folder = RunFolder(settings.runs / "evaluated")
    train(toy_run(settings.runs, run={"iterations": 2}, **HELD_OUT), folder)

    def get(path, status=200):
        answer = client.get(f"{API}/runs/{folder.id}{path}", headers=VIEWER)
        assert answer.status_code == status, answer.text
        return answer

    return folder.path / "evaluations", get


def test_evaluations_are_images_too(of_evaluated):
    folder, get = of_evaluated
    sheets = get("/evaluations").json()["items"]
    assert [sheet["label"] for sheet in sheets] == ["before", "step_000001", "after"]
    content = (folder / "before.png").read_bytes()
    assert get(f"/images/{sheets[0]['sha256']}").content == content
    (folder / "index.jsonl").unlink()  # as in a run of old
    assert len(get("/evaluations").json()["items"]) == 3
    assert get("/evaluations/after", 404).json()["code"] == "evaluation-not-found"


def test_of_every_evaluation_the_same_prompts_are_stored_with_their_verdicts(of_evaluated):
    folder, get = of_evaluated
    before, after = (get(f"/evaluations/{label}").json() for label in ("before", "after"))
    assert (before["policy_version"], after["policy_version"]) == (0, 2)
    assert [image["number"] for image in after["images"]] == [0, 1, 2, 3]
    for images in zip(before["images"], after["images"], strict=True):
        assert images[0]["prompt"] == images[1]["prompt"]
        for image in images:
            content = get(f"/images/{image['sha256']}").content
            assert hashlib.sha256(content).hexdigest() == image["sha256"]
            assert image["rewards"]["upper_half"]["value"] in (0.0, 1.0)
    image = {name: before["images"][0][name] for name in ("number", "prompt_id", "prompt")}
    image["digest"] = before["images"][0]["sha256"]
    line = {"evaluation": "after", "time": 9.0, "policy_version": 7, "images": [image]}
    with (folder / "index.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n{}\n")
    again = get("/evaluations/after").json()
    assert (again["policy_version"], len(again["images"])) == (7, 1)
    assert again["images"][0]["rewards"] == {}


def test_what_a_run_raised_and_what_its_numbers_say_are_both_alerts(client, get, finished):
    with (finished.path / "alerts.jsonl").open("w") as file:
        for cleared_at in (None, 9.0, None):  # of one alert the last line stands
            alert = {"id": "a", "rule": "reward_hacking", "time": 5.0, "step": 2}
            file.write(json.dumps(alert | {"cleared_at": cleared_at}) + "\n")
    with finished.metrics.open("a") as file:
        for step in (7, 8, 9):
            about = {"time": step, "step": step, "policy_version": step, "surrogate_version": 0}
            file.write(json.dumps(about | {"advantage/zero_signal": 0.9}) + "\n")
    assert {a["rule"] for a in get("/alerts").json()["items"]} == {"reward_hacking", "zero_signal"}
    assert len(client.get(f"{API}/alerts", headers=VIEWER).json()["items"]) == 2
