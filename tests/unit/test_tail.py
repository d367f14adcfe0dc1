"""Files that grow are read once, line by whole line."""

import json

import pytest

from services.run_store.forms import are_numbers, is_alert, is_appearance
from services.run_store.tail import Tail

pytestmark = pytest.mark.unit


def put(path, *numbers, end="\n"):
    with path.open("a") as file:
        file.write("\n".join(json.dumps({"n": number}) for number in numbers) + end)


def test_each_line_is_read_once_and_an_unfinished_one_not_yet(tmp_path):
    path = tmp_path / "lines"
    tail = Tail(path)
    assert tail.read() == []
    put(path, 1, 2, end="")
    assert tail.read() == [{"n": 1}]
    put(path, end="\n")
    assert tail.read() == [{"n": 2}]
    assert tail.read() == []


def test_a_place_can_be_kept_and_given_again(tmp_path):
    path = tmp_path / "lines"
    put(path, 1, 2)
    tail = Tail(path)
    tail.read()
    put(path, 3)
    assert Tail(path, tail.position).read() == [{"n": 3}]


def test_a_long_file_comes_in_pieces_and_a_long_line_whole(tmp_path):
    path = tmp_path / "lines"
    put(path, *range(100))
    tail = Tail(path)
    first = tail.read(max_bytes=50)
    assert 0 < len(first) < 100
    assert first + tail.read_all() == [{"n": number} for number in range(100)]
    put(path, "x" * 1000)
    assert tail.read(max_bytes=10) == [{"n": "x" * 1000}]


def test_a_file_that_became_shorter_is_over(tmp_path):
    path = tmp_path / "lines"
    put(path, *range(10))
    tail = Tail(path)
    tail.read_all()
    path.write_text("")
    assert tail.read() == []
    assert tail.is_over


TORN = (b'{"n": 2, "x', b"[3]", b"", b"\xff\xfe", b"null")


def test_torn_lines_are_skipped_counted_and_said_once(tmp_path, caplog):
    path = tmp_path / "lines"
    put(path, 1)
    with path.open("ab") as file:
        file.write(b"\n".join(TORN) + b"\n")
    put(path, 4)
    tail = Tail(path)
    assert tail.read() == [{"n": 1}, {"n": 4}]
    assert tail.num_skipped == len(TORN)
    assert Tail(path).read_all() == [{"n": 1}, {"n": 4}]
    (said,) = caplog.messages
    assert f"{path}: the line at byte 9 is not what we write; {len(TORN)} such" in said


def test_a_piece_of_torn_lines_alone_is_not_taken_for_the_end(tmp_path):
    path = tmp_path / "lines"
    path.write_text("torn\n" * 20)
    put(path, 1)
    assert Tail(path).read_all() == [{"n": 1}]
    assert Tail(path).read(max_bytes=10) == [{"n": 1}]


NUMBERS = {
    "time": 1.5,
    "step": 3,
    "policy_version": 2,
    "surrogate_version": 2,
    "reward/a/mean": None,
}
APPEARANCE = {
    "digest": "ab" * 32,
    "step": 1,
    "group_id": 2,
    "sample": 0,
    "policy_version": 1,
    "prompt_id": "p",
    "prompt": "two balls",
    "rewards": {"judge": {"state": "ready", "value": 0.5, "reason": ""}},
}
ALERT = {"id": "a", "rule": "x", "time": 1.0, "step": 3, "cleared_at": None}


def without(line, name):
    return {key: value for key, value in line.items() if key != name}


@pytest.mark.parametrize(
    ("is_ours", "line", "others"),
    [
        (
            are_numbers,
            NUMBERS,
            [
                *(without(NUMBERS, name) for name in ("time", "step", "policy_version")),
                NUMBERS | {"step": "3"},
                NUMBERS | {"step": 2**70},
                NUMBERS | {"time": None},
                NUMBERS | {"reward/a/mean": "0.5"},
            ],
        ),
        (
            is_appearance,
            APPEARANCE,
            [
                *(without(APPEARANCE, name) for name in APPEARANCE),
                APPEARANCE | {"digest": "../../secret"},
                APPEARANCE | {"rewards": {"judge": {"state": "liked", "value": 1.0, "reason": ""}}},
                APPEARANCE | {"rewards": {"judge": 0.5}},
            ],
        ),
        (is_alert, ALERT, [ALERT | {"time": "yesterday"}, ALERT | {"step": "three"}]),
    ],
)
def test_a_line_that_is_not_ours_is_skipped_and_counted(tmp_path, is_ours, line, others):
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps(each) + "\n" for each in (*others, line | {"more": 1})))
    tail = Tail(path, is_ours=is_ours)
    assert tail.read_all() == [line | {"more": 1}]
    assert tail.num_skipped == len(others)
