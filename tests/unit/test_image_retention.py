"""Which stored images go: the oldest, and never what a person or a kept group speaks of."""

import json

import numpy
import pytest

from services.config import RetentionConfig
from services.recording.worker import Recorder
from services.run_store.forms import is_tombstone
from services.run_store.images import ImageStore, thumbnail_path
from services.run_store.retention import THUMBNAILS, Retention, digests_of
from services.run_store.run_folder import RunFolder
from services.run_store.tail import Tail
from tests.train_cases import toy_run

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "runs" / "toy-1")
    made.images.mkdir(parents=True)
    return made


def picture(store, number):
    """A file that is like no other number's."""
    return store.add(numpy.random.default_rng(number).integers(0, 256, (8, 8, 3), numpy.uint8))


def store_group(folder, group_id, step, numbers):
    """A group of two images, of which each was predicted once; `numbers` are its four pictures."""
    store = ImageStore(folder.images)
    files = [picture(store, number) for number in numbers]
    about = {"step": step, "group_id": group_id, "policy_version": step}
    about |= {"prompt_id": "p", "prompt": "p", "rewards": {}}
    lines = [
        about | {"digest": files[i], "predictions": [files[i + 2]], "sample": i} for i in (0, 1)
    ]
    store.append(lines)
    return lines


def there(folder, line):
    store = ImageStore(folder.images)
    return [store.path(digest).exists() for digest in (line["digest"], *line["predictions"])]


def groups_left(folder, lines):
    return sorted({line["group_id"] for line in lines if all(there(folder, line))})


def run_of_five(folder):
    return [
        line
        for number in range(5)
        for line in store_group(folder, number, number // 2, range(4 * number, 4 * number + 4))
    ]


def tombstones(folder):
    return Tail(ImageStore(folder.images).removed_path, is_ours=is_tombstone).read_all()


def test_the_last_iterations_stay_and_each_group_that_goes_leaves_a_tombstone(folder):
    lines = run_of_five(folder)  # iterations 0, 0, 1, 1, 2
    before = sum(path.stat().st_size for path in folder.images.rglob("*.png"))
    retention = Retention(folder, RetentionConfig(last_iterations=2))
    assert retention.num_bytes == before
    would = retention.apply(only_count=True)
    assert groups_left(folder, lines) == [0, 1, 2, 3, 4]
    removed = retention.apply()
    assert removed == would
    assert (removed.num_groups, removed.num_images) == (2, 8)
    assert groups_left(folder, lines) == [2, 3, 4]
    left = sum(path.stat().st_size for path in folder.images.rglob("*.png"))
    assert retention.num_bytes == left == before - removed.num_bytes
    assert [each["group_id"] for each in tombstones(folder)] == [0, 1]
    assert {digest for each in tombstones(folder) for digest in each["digests"]} == {
        digest for line in lines[:4] for digest in (line["digest"], *line["predictions"])
    }
    assert tombstones(folder)[0]["rule"] == "last_iterations=2"
    assert retention.apply().num_groups == 0


def test_bytes_are_bounded_and_the_newest_group_stays_whatever_its_size(folder):
    lines = run_of_five(folder)
    store = ImageStore(folder.images)
    files = [digest for line in lines[-4:] for digest in digests_of(line)]
    newest_two = sum(store.path(digest).stat().st_size for digest in files)
    retention = Retention(folder, RetentionConfig(max_bytes=newest_two))
    retention.apply()
    assert groups_left(folder, lines) == [3, 4]
    assert retention.num_bytes == newest_two
    Retention(folder, RetentionConfig(max_bytes=1)).apply()
    assert groups_left(folder, lines) == [4]


def test_what_a_kept_group_shows_too_stays_until_that_group_goes(folder):
    old = store_group(folder, 0, 0, (1, 2, 3, 4))
    new = store_group(folder, 1, 5, (1, 6, 7, 8))
    retention = Retention(folder, RetentionConfig(last_iterations=1))
    assert retention.apply().num_images == 3
    assert [there(folder, line) for line in (*old, *new)] == [
        [True, False],
        [False, False],
        [True, True],
        [True, True],
    ]
    retention.stored(store_group(folder, 2, 9, (9, 10, 11, 12)))
    assert retention.apply().num_images == 4
    assert not any(there(folder, old[0]))
    again = Retention(folder, RetentionConfig(last_iterations=1))
    assert again.num_bytes == retention.num_bytes
    assert again.apply().num_groups == 0


def event(group_id, name, **more):
    return {"time": 1.0, "group_id": group_id, "event": name, "policy_version": 0} | more


def test_what_people_were_asked_about_stays_until_they_have_not_answered(folder):
    lines = run_of_five(folder)
    told = [event(g, "asked", reward="human") for g in (0, 1, 2)]
    told += [event(0, "labelled", states={"ready": 2}), event(1, "labelled", states={"expired": 2})]
    folder.groups.write_text("".join(json.dumps(each) + "\n" for each in told))
    retention = Retention(folder, RetentionConfig(last_iterations=1))
    retention.apply()
    assert groups_left(folder, lines) == [0, 2, 4]
    assert retention.num_wanted == 2
    retention.happened([event(2, "labelled", states={"expired": 2})])
    retention.apply()
    assert groups_left(folder, lines) == [0, 4]


def test_thumbnails_go_along(folder):
    lines = run_of_five(folder)
    cache = folder.path.parent / THUMBNAILS
    paths = [thumbnail_path(cache, size, x["digest"]) for x in lines for size in (256, 512)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    Retention(folder, RetentionConfig(last_iterations=1)).apply()
    assert [path.exists() for path in paths] == [False] * 16 + [True] * 4


def test_a_recorder_that_was_started_again_goes_on_where_the_first_died(folder):
    lines = run_of_five(folder)
    config = toy_run(
        folder.path.parent, telemetry={"retention": {"last_iterations": 2, "max_bytes": 10**6}}
    )
    first = Recorder(config, str(folder.path))
    assert first.retention is not None
    first.retention.apply()
    again = Recorder(config, str(folder.path))
    again.note([event(2, "labelled", reward="human", states={"ready": 2})])
    assert again.retention is not None
    again.retention.stored(store_group(folder, 5, 9, range(100, 104)))
    again.retention.apply()
    assert groups_left(folder, lines) == [2]
    assert [each["group_id"] for each in tombstones(folder)] == [0, 1, 3, 4]
