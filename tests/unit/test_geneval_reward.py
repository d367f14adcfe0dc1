"""GenEval as a reward: hand-computed verdicts over a detector that says what it is told."""

from pathlib import Path

import numpy as np
import pytest

from services.config import RewardConfig
from services.demo import stickers
from services.demo.stickers import Sticker, render
from services.prompts import read_prompts
from services.reward.contract import RewardInput
from services.reward.geneval import GenevalReward
from services.reward.worker import check_requirements
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit

DETECTOR = "python:reward_fakes:detect"
RED_DOGS = Prompt(
    "p:1",
    "two red dogs",
    {"tag": "colors", "include": [{"class": "dog", "count": 2, "color": "red"}]},
)
DOG_RIGHT_OF_CAT = Prompt(
    "p:2",
    "a dog right of a cat",
    {
        "tag": "position",
        "include": [
            {"class": "cat", "count": 1},
            {"class": "dog", "count": 1, "position": ["right of", 0]},
        ],
    },
)
ONE_DOG = Prompt(
    "p:3",
    "one dog",
    {
        "tag": "counting",
        "include": [{"class": "dog", "count": 1}],
        "exclude": [{"class": "dog", "count": 2}],
    },
)


def judge(prompt: Prompt, *sights: int, **options):
    images = [np.full((4, 4, 3), sight, dtype=np.uint8) for sight in sights]
    batch = [RewardInput(image, prompt, 0, i, 0) for i, image in enumerate(images)]
    return GenevalReward(detector=DETECTOR, **options).evaluate(batch)


def test_strict_is_the_benchmarks_verdict_and_soft_the_share_of_conditions():
    nothing, one_red = judge(RED_DOGS, 0, 1)
    assert (nothing.value, one_red.value) == (0.0, 0.0)
    # Presence 0/2 and colour 0/2; then presence 2/2 and colour 1/2.
    assert [verdict.value for verdict in judge(RED_DOGS, 0, 1, score="soft")] == [0.0, 0.75]
    assert one_red.reason == "expected red dog>=2, found 1"


def test_positions_count():
    right, left = judge(DOG_RIGHT_OF_CAT, 2, 3)
    assert (right.value, left.value) == (1.0, 0.0)
    assert right.reason == "all clauses hold"
    assert left.reason == "expected dog right of target, found otherwise"


def test_parts_name_both_scores_and_what_each_clause_found():
    (verdict,) = judge(RED_DOGS, 1)
    assert verdict.parts == {
        "strict": 0.0,
        "soft": 0.75,
        "include 0 dog: found": 2.0,
        "include 0 dog: red": 1.0,
    }
    (verdict,) = judge(ONE_DOG, 1, counting_threshold=0.4)
    assert verdict.parts["exclude 0 dog: found"] == 2.0


def test_counting_has_its_own_threshold():
    assert judge(ONE_DOG, 1)[0].value == 1.0
    assert judge(ONE_DOG, 1, counting_threshold=0.4)[0].value == 0.0
    assert judge(RED_DOGS, 1, threshold=0.6)[0].reason == "expected dog>=2, found 1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "medium"}, "allowed are strict, soft"),
        ({"threshold": 1}, r"allowed is a confidence in \[0, 1\)"),
        ({"counting_threshold": "high"}, "counting_threshold='high'"),
        ({"detector": "yolo"}, "allowed are stickers, mask2former, or your own as"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenevalReward(**{"detector": DETECTOR, **options})


def test_a_prompt_without_clauses_is_named_before_the_run():
    config = RewardConfig(name="g", kind="geneval", options={"detector": DETECTOR})
    check_requirements(config, [RED_DOGS, DOG_RIGHT_OF_CAT, ONE_DOG])
    with pytest.raises(ValueError, match=r"the prompt p:9 'a dog': it has no metadata"):
        check_requirements(config, [RED_DOGS, Prompt("p:9", "a dog")])
    with pytest.raises(ValueError, match=r"the prompt p:8 'a cat': .*no clause"):
        check_requirements(config, [Prompt("p:8", "a cat", {"style": "ink"})])


def test_the_version_changes_with_every_option():
    versions = {
        GenevalReward(detector=DETECTOR, **options).version
        for options in ({}, {"score": "soft"}, {"threshold": 0.2}, {"counting_threshold": 0.2})
    }
    assert len(versions) == 4


def test_the_bundled_detector_judges_drawn_stickers():
    prompts = [
        Prompt(
            "d:1", "a red circle", {"include": [{"class": "circle", "count": 1, "color": "red"}]}
        ),
        Prompt("d:2", "two squares", {"include": [{"class": "square", "count": 2}]}),
    ]
    board = (Sticker("circle", "red", 0, 1), Sticker("square", "blue", 2, 2))
    image = render(board, np.random.default_rng(0))
    batch = [RewardInput(image, prompt, 0, i, 0) for i, prompt in enumerate(prompts)]
    strict = GenevalReward().evaluate(batch)
    soft = GenevalReward(score="soft").evaluate(batch)
    assert [verdict.value for verdict in strict] == [1.0, 0.0]
    assert [verdict.value for verdict in soft] == [1.0, 0.5]


def test_the_bundled_prompts_are_judged_by_the_bundled_detector():
    folder = Path(stickers.__file__).parent / "prompts"
    config = RewardConfig(name="g", kind="geneval")
    for name in ("train.jsonl", "heldout.jsonl"):
        check_requirements(config, read_prompts(folder / name))


@pytest.mark.parametrize("color", ["grey", "gray", "Red"])
def test_a_color_that_the_detector_cannot_tell_is_named_before_the_run(color):
    config = RewardConfig(name="g", kind="geneval")
    clause = {"class": "circle", "count": 1, "color": color}
    prompt = Prompt("train.jsonl:7", f"a {color} circle", {"include": [clause]})
    told = f"'stickers' cannot tell the color '{color}', only red, green, blue, yellow; use another"
    with pytest.raises(ValueError, match=f"train.jsonl:7 .*{told}"):
        check_requirements(config, [prompt])


@pytest.mark.parametrize(
    "metadata",
    [{"include": ["dog"]}, {**ONE_DOG.metadata, "exclude": None}, {"include": "dog"}],
)
def test_metadata_that_is_not_genevals_is_refused_wherever_it_came_from(metadata):
    config = RewardConfig(name="g", kind="geneval", options={"detector": DETECTOR})
    with pytest.raises(ValueError, match=r"the prompt p:7 'a dog': .*(write|it must be a list)"):
        check_requirements(config, [Prompt("p:7", "a dog", metadata)])


def test_a_class_that_the_detector_cannot_see_is_named_before_the_run():
    config = RewardConfig(name="g", kind="geneval")
    with pytest.raises(ValueError, match=r"p:1 .*'stickers' cannot see 'dog', only circle, square"):
        check_requirements(config, [RED_DOGS])


def test_the_version_has_the_detectors_own():
    named, second, third = (
        GenevalReward(detector=f"python:reward_fakes:{name}").version
        for name in ("detect", "detect_2", "detect_3")
    )
    assert named == "1:python:reward_fakes:detect:strict:0.3:0.9"
    assert second == "1:python:reward_fakes:detect_2@2:strict:0.3:0.9"
    assert third.replace("3@3", "2@2") == second


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detect_unsaid", "detect_unsaid' has the version 3; a text is allowed"),
        ("SIGHTS", "SIGHTS' is .*; name a function that takes an image"),
        ("nobody", "has no 'nobody'"),
    ],
)
def test_a_detector_that_is_no_function_or_has_no_text_for_a_version_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        GenevalReward(detector=f"python:reward_fakes:{name}")
