"""The benchmark's own prompt files are read as they are, where this machine has them."""

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from services.demo.prompts import TAGS
from services.evaluation.scores import score_table
from services.prompts import check_clauses, read_prompts
from services.reward.clip_colors import COLORS
from services.reward.contract import RewardInput
from services.reward.geneval import GenevalReward
from services.reward.geneval_rules import score_strict
from services.reward.mask2former import class_names
from services.reward.ocr import target_of
from tdm_core.types import RewardRecord

pytestmark = pytest.mark.unit

COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
DATA = Path(os.environ.get("TDM_R1_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip(f"{name} is not in {DATA}; name its folder in TDM_R1_DATA")
    return DATA / name


@dataclass(frozen=True)
class Seen:
    class_name: str
    color: str | None
    score: float
    box: tuple[float, float, float, float]


TOWARDS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def as_asked(metadata: dict) -> list[Seen]:
    """Objects that hold all `include` clauses; a clause's objects are close together."""
    seen: list[Seen] = []
    centers: list[tuple[float, float]] = []
    for place, clause in enumerate(metadata["include"]):
        center = (1000.0 * place, 1000.0 * place)
        if "position" in clause:
            relation, target = clause["position"]
            dx, dy = TOWARDS[relation]
            center = (centers[target][0] + 200.0 * dx, centers[target][1] + 200.0 * dy)
        centers.append(center)
        x, y = center
        for _ in range(clause["count"]):
            box = (x - 5, y - 5, x + 5, y + 5)
            seen.append(Seen(clause["class"], clause.get("color"), 0.95, box))
    return seen


def clauses_of(metadata: dict) -> list[dict]:
    return [*metadata["include"], *metadata.get("exclude", [])]


def no_object(image: np.ndarray) -> list[Seen]:
    """A detector that sees nothing."""
    return []


@pytest.fixture(params=["of our own", "of the benchmark"])
def geneval_file(request) -> Path:
    if request.param == "of our own":
        return Path(__file__).parent / "geneval_prompts.jsonl"
    return real("geneval_evaluation_metadata.jsonl")


def test_genevals_553_prompts_are_read_and_their_clauses_are_valid():
    prompts = read_prompts(real("geneval_evaluation_metadata.jsonl"))
    counts = Counter(prompt.metadata["tag"] for prompt in prompts)
    assert [counts[tag] for tag in TAGS] == [80, 99, 80, 94, 100, 100]
    for prompt in prompts:
        check_clauses(prompt.metadata)


def test_genevals_prompts_run_unchanged_and_the_benchmark_is_the_mean_over_its_tags(geneval_file):
    prompts = read_prompts(geneval_file)
    reward = GenevalReward(detector=f"python:{__name__}:no_object")
    for prompt in prompts:
        reward.check_prompt(prompt)
    verdicts = [score_strict(prompt.metadata, as_asked(prompt.metadata)) for prompt in prompts]
    assert [reason for passed, reason in verdicts if not passed] == []
    # One tag failed whole costs a sixth, however many of the prompts have it.
    records = [
        RewardRecord(n, 0, 0, "g", "ready", float(prompt.metadata["tag"] != "position"))
        for n, prompt in enumerate(prompts)
    ]
    table = score_table("g", records, dict(enumerate(prompts)))
    assert {name for name in table if name.removeprefix("g/") in TAGS} == {f"g/{t}" for t in TAGS}
    assert table["g/tag_mean"] == pytest.approx(5 / 6)
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    empty = reward.evaluate([RewardInput(image, prompt, 0, 0, 0) for prompt in prompts])
    assert {verdict.value for verdict in empty} == {0.0}


def test_every_class_that_genevals_prompts_name_is_one_of_cocos(tmp_path):
    labels = {str(i): name for i, name in enumerate(COCO.split(","))}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    seen = class_names(tmp_path)
    assert len(seen) == 80
    prompts = read_prompts(real("geneval_evaluation_metadata.jsonl"))
    clauses = [clause for prompt in prompts for clause in clauses_of(prompt.metadata)]
    assert {clause["class"] for clause in clauses} == set(seen)
    assert {clause["color"] for clause in clauses if "color" in clause} == set(COLORS)


def test_every_prompt_of_the_ocr_set_has_a_target():
    prompts = read_prompts(real("ocr_prompts_test.txt"))
    assert len(prompts) == 1018
    assert all(target_of(prompt) for prompt in prompts)
    assert target_of(prompts[0]) == "springcollection2024"
