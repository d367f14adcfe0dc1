"""`tdm-r1 demo` from its first line to its files, on a tiny model, in this process."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from services.cli import app
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    teacher = build_checkpoint(folder / "teacher")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    overrides = [
        f"model.teacher={teacher}",
        f"model.generator={teacher}",
        f"prompts={{train: {folder}/prompts.txt, heldout: {folder}/prompts.txt}}",
        "rewards=[{name: size, kind: jpeg_compressibility}]",
        "algorithm={num_groups: 2, group_size: 2}",
        "cluster={runtime: local, engine: torch}",
        "evaluation={num_images: 3, score_teacher: true, teacher_steps: 2}",
        "run.iterations=2",
        "run.seed=5",
    ]
    return CliRunner().invoke(app, ["demo", "--runs", str(folder / "runs"), "--json", *overrides])


def test_the_demo_ends_well_and_its_summary_has_what_is_promised(answer):
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    scores = {summary[key] for key in ("teacher_score", "student_before", "student_after")}
    assert all(isinstance(score, float) for score in scores)
    assert summary["num_images"] == 3
    assert summary["seed"] == 5
    assert summary["seconds"] > 0
    run = Path(summary["before_after"]).parent
    assert json.loads((run / "summary.json").read_text()) == summary


def test_the_demo_leaves_a_grid_a_curve_and_an_export(answer):
    summary = json.loads(answer.stdout)
    grid, curve = (Image.open(summary[name]) for name in ("before_after", "curve"))
    assert grid.width > grid.height
    assert len(curve.getcolors(maxcolors=10_000)) > 3
    assert (Path(summary["curve"]).parent / "export/model_index.json").is_file()


def test_the_command_that_the_demo_prints_makes_pictures(answer, tmp_path):
    words = shlex.split(json.loads(answer.stdout)["sample_command"])
    assert words[0] == "tdm-r1"
    sampled = CliRunner().invoke(app, [*words[1:-1], "2", "--out", str(tmp_path), "--json"])
    assert sampled.exit_code == 0, sampled.output
    images = json.loads(sampled.stdout)["images"]
    assert len(images) == 2
    assert all(Path(image).is_file() for image in images)


def test_the_world_of_words_trains_its_own_models_and_is_read_by_the_engine(tmp_path):
    overrides = [
        "algorithm={num_groups: 1, group_size: 2}",
        "cluster={runtime: local, engine: torch}",
        "evaluation={num_images: 2, score_teacher: true, teacher_steps: 2}",
        "run.iterations=1",
    ]
    command = ["demo", "--world", "words", "--runs", str(tmp_path), "--json", *overrides]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    assert summary["score"] == "ocr"
    assert 0 <= summary["student_before"] <= 1
    assert '"' in shlex.split(summary["sample_command"])[4]


def test_a_world_that_is_not_bundled_is_refused_with_those_that_are(tmp_path):
    answer = CliRunner().invoke(app, ["demo", "--world", "moon", "--runs", str(tmp_path)])
    assert answer.exit_code != 0
    assert "--world moon: no such bundled world; allowed: stickers, words" in answer.output
