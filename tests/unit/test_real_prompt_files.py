"""The benchmark's own prompt files are read as they are, where this machine has them."""

import os
from collections import Counter
from pathlib import Path

import pytest

from services.prompts import read_prompts
from services.reward.geneval import TAGS
from services.reward.geneval_rules import check_metadata
from services.reward.ocr import target_of

pytestmark = pytest.mark.unit

DATA = Path(os.environ.get("TDM_R1_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{name} is not in {DATA}; name its folder in TDM_R1_DATA")
    return DATA / name


def test_genevals_553_prompts_are_read_and_their_clauses_are_valid():
    prompts = read_prompts(real("geneval_evaluation_metadata.jsonl"))
    counts = Counter(prompt.metadata["tag"] for prompt in prompts)
    assert [counts[tag] for tag in TAGS] == [80, 99, 80, 94, 100, 100]
    for prompt in prompts:
        check_metadata(prompt.metadata)


def test_every_prompt_of_the_ocr_set_has_a_target():
    prompts = read_prompts(real("ocr_prompts_test.txt"))
    assert len(prompts) == 1018
    assert all(target_of(prompt) for prompt in prompts)
    assert target_of(prompts[0]) == "springcollection2024"
