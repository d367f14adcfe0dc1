"""`tdm-r1 reward`: a folder scored from the shell, whatever the reward and the files do."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import reward_fakes
import yaml
from PIL import Image
from typer.testing import CliRunner

from services.cli import app
from services.image_folder import FolderImage
from services.scored_folder import MAX_SHEET_IMAGES, ScoredImage, by_reward, draw_scores
from tdm_core.types import Prompt, RewardRecord

pytestmark = pytest.mark.unit

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_reward.py"
BRIGHTNESS, RANKS = "python:reward_fakes:Brightness", "python:reward_fakes:Ranks"
ODD, HANGING = "python:reward_fakes:Odd", "python:reward_fakes:Hanging"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reward_fakes.release.clear()  # another file's tests may have set it
    (tmp_path / "images").mkdir()
    return tmp_path


def draw(here, *bytes, size=(8, 6)):
    """One image for each first byte, 0.png and on."""
    for number, byte in enumerate(bytes):
        Image.new("RGB", size, (byte, 0, 0)).save(here / f"images/{number}.png")


def prompts(here, *lines):
    (here / "prompts.txt").write_text("".join(f"{line}\n" for line in lines))
    return ["--prompts", "prompts.txt"]


def call(*arguments):
    return CliRunner().invoke(
        app, ["reward", *map(str, arguments), "--images", "images"], catch_exceptions=False
    )


def table(path="rewards.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_a_row_in_the_order_of_names(here):
    draw(here, 5, 200, 90)
    shown = call(BRIGHTNESS, *prompts(here, "dark", "=SUM(A1)", "middle"))
    assert shown.exit_code == 0, shown.output
    rows = table()
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png"]
    assert [row["prompt"] for row in rows] == ["dark", "'=SUM(A1)", "middle"]
    assert [float(row["value"]) for row in rows] == [5, 200, 90]
    assert {(row["state"], row["version"]) for row in rows} == {("ready", "7")}
    assert "best 1.png, worst 0.png" in shown.stdout


def test_the_summary_for_scripts_has_the_numbers_and_the_files(here):
    draw(here, 0, 100)
    shown = json.loads(call(BRIGHTNESS, "--json", "--out", "x.jsonl", "--sheet", "y.png").stdout)
    assert shown == {
        "images": 2,
        "ready": 2,
        "missing": 0,
        "mean": 50,
        "std": 50,
        "lowest": 0,
        "highest": 100,
        "reward": "Brightness",
        "table": "x.jsonl",
        "sheet": "y.png",
        "scores": {"Brightness": 50, "Brightness/missing": 0, "Brightness/std_error": 50},
    }
    first, second = [json.loads(line) for line in (here / "x.jsonl").read_text().splitlines()]
    assert (first["value"], second["value"]) == (0, 100)
    assert (second["prompt"], second["parts"]) == ("", {})


def test_prompts_with_tags_have_the_benchmark_s_mean_over_tags(here):
    draw(here, 0, 0, 0)
    one = {"class": "circle", "count": 1}
    lines = [
        {"tag": "counting", "prompt": "a", "include": [one], "exclude": [one]},
        {"tag": "single_object", "prompt": "b", "exclude": [one]},
        {"tag": "single_object", "prompt": "c", "include": [one]},
    ]
    (here / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = call("geneval", "--prompts", "p.jsonl")
    assert "geneval/strict/tag_mean 0.25" in shown.stdout
    scores = json.loads(call("geneval", "--prompts", "p.jsonl", "--json").stdout)["scores"]
    assert (scores["geneval/strict/counting"], scores["geneval/strict/single_object"]) == (0, 0.5)


def test_an_image_without_a_value_has_an_empty_cell_and_its_reason(here):
    draw(here, 0, 1, 3, 5, 6)
    shown = call(ODD)
    assert shown.exit_code == 0
    by_file = {row["file"]: row for row in table()}
    assert [by_file[f"{n}.png"]["value"] for n in range(5)] == ["0.5", "", "", "0.25", ""]
    assert by_file["1.png"]["reason"] == "the reward gave nan; a finite number is allowed"
    assert by_file["4.png"]["reason"] == "it is blank"
    assert (by_file["3.png"]["part:a"], by_file["0.png"]["part:a"]) == ("1.0", "")
    assert "first without a value: 1.png: the reward gave nan" in shown.stdout


def test_a_file_that_is_no_image_costs_its_own_row_alone(here):
    draw(here, 10, 20, 30)
    (here / "images/1.png").write_text("no image")
    assert call(BRIGHTNESS).exit_code == 0
    rows = table()
    assert [row["value"] for row in rows] == ["10.0", "", "30.0"]
    assert rows[1]["reason"].startswith("cannot be read: ")


def test_where_no_image_gets_a_value_the_command_fails(here):
    draw(here, 13)
    shown = call(HANGING, "--deadline-s", "0.2")
    assert shown.exit_code == 1
    assert table()[0]["state"] == "expired"


def test_a_groupwise_reward_compares_the_images_of_one_prompt(here):
    draw(here, 50, 10, 30, 20)
    shown = call(RANKS, *prompts(here, "cat", "cat", "dog", "dog"))
    assert shown.exit_code == 0, shown.output
    assert [float(row["value"]) for row in table()] == [1, 0, 1, 0]
    call("ranked", f"kind={BRIGHTNESS}", *prompts(here, "cat", "dog"), "--images-per-prompt", 2)
    assert [float(row["value"]) for row in table()] == [1, 0, 1, 0]


def test_a_group_of_several_sizes_is_refused_before_anything_is_scored(here):
    draw(here, 50, 10, 20, 30)
    Image.new("RGB", (4, 4)).save(here / "images/3.png")
    shown = call(RANKS, "--batch-size", 2, *prompts(here, "dog", "dog", "cat", "cat"))
    assert shown.exit_code == 2
    assert "images of the prompt 'cat' have the sizes 4x4, 8x6" in shown.output
    assert "score those of each size by themselves" in shown.output
    assert not (here / "rewards.csv").exists()


def test_images_of_several_sizes_are_judged_size_by_size_and_listed_by_name(here):
    draw(here, 50, 10, 20)
    Image.new("RGB", (4, 4), (70, 0, 0)).save(here / "images/1.png")
    assert call("python:reward_fakes:Stacking").exit_code == 0
    assert [(row["file"], row["value"]) for row in table()] == [
        ("0.png", "50.0"),
        ("1.png", "70.0"),
        ("2.png", "20.0"),
    ]


def test_images_are_seen_as_the_camera_was_held_and_in_colour(here):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((4, 8), 90, np.uint8)).save(here / "images/a.jpg", exif=exif)
    Image.fromarray(np.full((8, 4), 50, np.uint8)).save(here / "images/b.jpg")
    assert call(RANKS).exit_code == 0
    assert [float(row["value"]) for row in table()] == [1, 0]
    assert call(BRIGHTNESS).exit_code == 0
    assert float(table()[0]["value"]) == pytest.approx(90, abs=2)


def test_options_are_the_rewards_and_a_wrong_one_is_named(here):
    draw(here, 1)
    assert call("jpeg_compressibility", "quality=50").exit_code == 0
    assert table()[0]["version"] == "1:q50"
    shown = call("jpeg_compressibility", "qualty=50")
    assert (shown.exit_code, "did you mean 'quality'" in shown.output) == (2, True)


def test_a_reward_of_a_config_is_taken_with_its_options(here):
    draw(here, 1)
    tree = {
        "model": {"family": "toy", "teacher": "toy", "roles": "full"},
        "prompts": {"train": "nowhere.txt", "heldout": "nowhere.txt"},
        "rewards": [
            {"name": "size", "kind": "jpeg_compressibility", "options": {"quality": 40}},
            {"name": "people", "kind": "human", "options": {"url": "http://127.0.0.1:1"}},
        ],
        "algorithm": {"advantages": {"combination": "per_reward_advantage"}},
        "evaluation": {"rewards": [{"name": "light", "kind": BRIGHTNESS}]},
    }
    (here / "run.yaml").write_text(yaml.safe_dump(tree))
    assert call("size", "--config", "run.yaml").exit_code == 0
    assert table()[0]["version"] == "1:q40"
    call("size", "quality=60", "--config", "run.yaml")
    assert table()[0]["version"] == "1:q60"
    assert call("light", "--config", "run.yaml").exit_code == 0
    shown = call("colour", "--config", "run.yaml")
    assert "run.yaml has no reward 'colour'; it has size, people, light" in shown.output
    assert "people judge through the label service" in call("people", "--config", "run.yaml").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "unknown reward kind 'nothing'"),
        ([BRIGHTNESS, "--out", "x.xlsx"], "its suffix is neither .csv nor .jsonl"),
        ([BRIGHTNESS, "--format", "xml"], "--format 'xml': allowed are csv, jsonl"),
        ([BRIGHTNESS, "--out", "no/x.csv"], "no folder"),
        ([BRIGHTNESS, "--sheet", "x.gif"], "give it the suffix .png"),
        ([BRIGHTNESS, "--sheet", "no/x.png"], "--sheet no/x.png: no folder"),
        ([BRIGHTNESS, "--sheet", "images/x.png"], "lies in the folder of images"),
        ([BRIGHTNESS, "--prompts", "no.txt"], "no.txt does not exist"),
        ([BRIGHTNESS, "--batch-size", "0"], "batch_size"),
        (["ocr"], "0.png has no prompt"),
        (["python:reward_fakes:NeedsMetadata"], "no metadata"),
        (["jpeg_compressibility", "quality"], "'quality': write it as key=value"),
        ([BRIGHTNESS, "--out", "folder.csv"], "--out folder.csv is a folder"),
        ([BRIGHTNESS, "--sheet", "folder.png"], "--sheet folder.png is a folder"),
        (
            [BRIGHTNESS, "--prompts", "p.jsonl", "--out", "images/../p.jsonl"],
            "is the prompt file, which it would replace",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_scored(here, arguments, message):
    draw(here, 1)
    for name in ("folder.csv", "folder.png"):
        (here / name).mkdir()
    shown = call(*arguments)
    assert shown.exit_code == 2
    assert message in shown.output
    assert not (here / "rewards.csv").exists()


def test_the_example_of_ones_own_reward_runs_from_its_folder(here):
    shutil.copy(EXAMPLE, here / "shell_custom_reward.py")
    draw(here, 0, 255)
    shown = call("python:shell_custom_reward:Colourfulness", *prompts(here, "black", "red"))
    assert shown.exit_code == 0, shown.output
    # Pure red: opponents (255, 127.5) without spread.
    assert [float(row["value"]) for row in table()] == pytest.approx(
        [0, 0.3 * (255**2 + 127.5**2) ** 0.5 / 100]
    )


def scored(value, name="a.png"):
    state = "failed" if value is None else "ready"
    record = RewardRecord(0, 0, 0, "r", state, value)
    image = FolderImage(Path(name), name, Prompt("p:1", "x"))
    shade = int(value or 0) % 256
    return ScoredImage(image, record, Image.new("RGB", (160, 160), (shade, shade, shade)))


def test_the_sheet_is_by_reward_and_what_has_none_comes_last():
    rows = [scored(None), scored(10.0), scored(-5.0), scored(200.0)]
    assert [row.record.value for row in by_reward(rows)] == [200, 10, -5, None]
    sheet = np.asarray(draw_scores(rows))
    assert sheet[20, 20, 0] == 200
    assert sheet[20, 20 + 166, 0] == 10


def test_of_very_many_images_the_sheet_has_the_best_and_the_worst():
    rows = [scored(float(value)) for value in range(MAX_SHEET_IMAGES + 50)]
    small = draw_scores(rows[:MAX_SHEET_IMAGES])
    assert draw_scores(rows).size == small.size
    best = (MAX_SHEET_IMAGES + 49) % 256
    assert np.asarray(draw_scores(rows))[20, 20, 0] == best


def test_what_was_judged_before_an_interruption_is_written(here):
    draw(here, 1, 2, 13)
    shown = call("python:reward_fakes:Interrupted", "--batch-size", "2")
    assert shown.exit_code == 130
    assert [row["file"] for row in table()] == ["0.png", "1.png"]
