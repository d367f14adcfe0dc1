"""Scores are means over what is there, by tag, and nothing missing counts as zero."""

from dataclasses import replace

import pytest

from services.evaluation.scores import score_table
from tdm_core.types import Prompt, RewardRecord

pytestmark = pytest.mark.unit

PROMPTS = {
    number: Prompt(f"p:{number}", "text", {"tag": tag})
    for number, tag in enumerate(["counting", "counting", "colors", "colors"])
}


def record(number: int, value: float | None, **parts: float) -> RewardRecord:
    state = "failed" if value is None else "ready"
    return RewardRecord(number, 0, 0, "geneval", state, value, parts=parts)


def test_means_are_overall_by_tag_and_over_tags():
    records = [
        record(0, 1.0, strict=1.0, soft=1.0),
        record(1, 0.0, strict=0.0, soft=0.5),
        record(2, 1.0, strict=1.0, soft=1.0, found=2.0),
    ]
    table = score_table("geneval", records, PROMPTS)
    assert table["geneval"] == pytest.approx(2 / 3)
    assert table["geneval/strict/counting"] == 0.5
    assert table["geneval/strict/colors"] == 1.0
    assert table["geneval/strict/tag_mean"] == 0.75
    assert table["geneval/soft"] == pytest.approx(2.5 / 3)
    assert table["geneval/missing"] == 0
    assert table["geneval/std_error"] == pytest.approx(1 / 3)  # sqrt(1/3) / sqrt(3)
    assert not any("found" in name for name in table)


def test_images_of_one_group_are_one_witness():
    records = [replace(record(n, float(n + s)), sample=s) for n in range(2) for s in (0, 2)]
    table = score_table("rank", records, PROMPTS)
    assert table["rank"] == 1.5
    assert table["rank/std_error"] == 0.5  # of the groups' means 1 and 2
    assert "rank/std_error" not in score_table("rank", records[:2], PROMPTS)


def test_a_failed_image_is_counted_and_left_out_of_every_mean():
    table = score_table("geneval", [record(0, 1.0), record(1, None)], PROMPTS)
    assert table["geneval"] == 1.0
    assert table["geneval/missing"] == 1
    assert score_table("geneval", [record(1, None)], PROMPTS) == {"geneval/missing": 1}


def test_prompts_without_tags_have_no_tag_means():
    table = score_table("jpeg", [record(0, 3.0)], {0: Prompt("p:0", "text")})
    assert table == {"jpeg": 3.0, "jpeg/missing": 0}
