"""Which prompt is whose: by the order of names, by named files, by the PNGs' own text."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.csv_cells import csv_line
from services.image_folder import grouped, image_files, read_folder

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


def draw(folder, *names, prompt=None):
    for name in names:
        facts = PngInfo()
        if prompt is not None:
            facts.add_itxt("prompt", prompt)
        picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
        (folder / name).parent.mkdir(exist_ok=True)
        picture.save(folder / name, **({"pnginfo": facts} if name.endswith("png") else {}))


def texts(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def pairs(images):
    return [(image.name, image.prompt.text) for image in images]


def test_images_are_in_the_order_of_names_and_numbers_count_as_numbers(folder):
    draw(folder, "10.png", "9.png", "a2.jpg", "a10.webp", "b.PNG", "01.png", "1.png")
    (folder / "notes.txt").write_text("no image")
    names = [path.name for path in image_files(folder)]
    assert names == ["01.png", "1.png", "9.png", "10.png", "a2.jpg", "a10.webp", "b.PNG"]


def test_prompts_without_file_names_go_by_that_order(folder, tmp_path):
    draw(folder, "10.png", "9.png")
    prompts = texts(tmp_path / "p.txt", "nine", "ten")
    assert pairs(read_folder(folder, prompts)) == [("9.png", "nine"), ("10.png", "ten")]


def test_several_images_a_prompt_follow_one_another(folder, tmp_path):
    draw(folder, "0_0.png", "0_1.png", "1_0.png", "1_1.png")
    images = read_folder(folder, texts(tmp_path / "p.txt", "cat", "dog"), images_per_prompt=2)
    assert [image.prompt.text for image in images] == ["cat", "cat", "dog", "dog"]
    assert [len(group) for group in grouped(images)] == [2, 2]


def test_lines_that_name_files_go_by_the_names_in_the_order_of_lines(folder, tmp_path):
    draw(folder, "a.png", "b.png", "left_out.png", "deep/c.png")
    prompts = texts(
        tmp_path / "p.jsonl",
        json.dumps({"prompt": "cee", "file_name": "deep/c.png", "size": 3}),
        json.dumps({"prompt": "bee", "file_name": "b.png"}),
    )
    images = read_folder(folder, prompts)
    assert pairs(images) == [("deep/c.png", "cee"), ("b.png", "bee")]
    assert [dict(image.prompt.metadata) for image in images] == [{"size": 3}, {}]


def test_without_a_prompt_file_the_pngs_say_what_they_were_made_for(folder):
    draw(folder, "a.png", prompt="a d\u00f6g")
    draw(folder, "b.png", "c.jpg")
    (folder / "d.png").write_text("no image")
    expected = [("a.png", "a d\u00f6g"), ("b.png", ""), ("c.jpg", ""), ("d.png", "")]
    assert pairs(read_folder(folder)) == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["one", "two"],
            r"holds 3 images but .*p.txt has 2 prompts; .*image 'c.png' has no prompt\. Write",
        ),
        (
            ["one", "two", "three", "four", "five"],
            r"3 images but .* has 5 prompts; .*prompt p.txt:4 'four' has no image",
        ),
    ],
)
def test_where_counts_differ_both_and_the_first_left_over_are_named(
    folder, tmp_path, lines, message
):
    draw(folder, "a.png", "b.png", "c.png")
    with pytest.raises(ValueError, match=message):
        read_folder(folder, texts(tmp_path / "p.txt", *lines))


def test_the_count_with_several_images_a_prompt_is_spelled_out(folder, tmp_path):
    draw(folder, "a.png", "b.png", "c.png")
    with pytest.raises(ValueError, match=r"2 prompts x 2 images a prompt = 4; .*p.txt:2 'two' has"):
        read_folder(folder, texts(tmp_path / "p.txt", "one", "two"), images_per_prompt=2)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"file_name": "nowhere.png"}, "p.jsonl:2: no image 'nowhere.png' in"),
        ({"file_name": "a.png"}, "p.jsonl:2: 'a.png' has a prompt already, p.jsonl:1"),
        ({}, "p.jsonl:2: 'file_name' is None; where one line names its file, all do"),
        ({"file_name": 3}, "p.jsonl:2: 'file_name' is 3"),
        ({"file_name": "../images/a.png"}, "p.jsonl:2: '../images/a.png' is not inside"),
        ({"file_name": "/etc/hostname"}, "p.jsonl:2: '/etc/hostname' is not inside"),
    ],
)
def test_a_line_whose_file_is_not_to_be_had_is_named(folder, tmp_path, second, message):
    draw(folder, "a.png")
    lines = [{"prompt": "x", "file_name": "a.png"}, {"prompt": "y", **second}]
    with pytest.raises(ValueError, match=message):
        read_folder(folder, texts(tmp_path / "p.jsonl", *map(json.dumps, lines)))


def test_a_folder_that_is_not_there_or_holds_no_image_is_an_error(folder):
    with pytest.raises(ValueError, match="holds no image; allowed are"):
        read_folder(folder)
    with pytest.raises(ValueError, match="no folder"):
        read_folder(folder / "nowhere")
    with pytest.raises(ValueError, match="images_per_prompt=0: at least 1"):
        read_folder(folder, None, 0)


def test_equal_prompts_are_a_group_wherever_they_stand_and_metadata_count(folder, tmp_path):
    draw(folder, "a.png", "b.png", "c.png", "d.png")
    lines = [{"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"}, {"prompt": "x", "seed": 1}]
    images = read_folder(folder, texts(tmp_path / "p.jsonl", *map(json.dumps, lines)))
    names = [[image.name for image in group] for group in grouped(images)]
    assert names == [["a.png", "c.png"], ["b.png"], ["d.png"]]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_text_in_a_table_is_taken_for_a_formula(text):
    assert csv_line([text]).decode().strip('"\r\n').startswith("'")


def test_numbers_in_a_table_stay_numbers_and_what_is_missing_is_empty():
    assert csv_line([-1.5, None, "a,b", [1, 2]]) == b'-1.5,,"a,b",1|2\r\n'
