"""A ranked reward knows order alone, inside each group."""

import pytest
import torch

from services.config import RewardConfig
from services.reward.ranked import best, rank
from services.reward.worker import RewardWorker, check_requirements
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.unit


def judged(groups: list[list[int]], mode: str = "rank", kind: str = "Brightness", **options):
    """Records of groups of plain images, one byte each."""
    inner = {"kind": f"python:reward_fakes:{kind}", "mode": mode, "options": options}
    worker = RewardWorker(RewardConfig(name="r", kind="ranked", options=inner, retries=0))
    return worker.evaluate([image_group(number, bytes_) for number, bytes_ in enumerate(groups)])


def image_group(number: int, values: list[int]) -> ImageGroup:
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None, None]
    return ImageGroup(number, Prompt("p:1", "x"), 0, images.expand(-1, 1, 3, 4, 4))


def values(records) -> list[float | None]:
    return [record.value for record in records]


def test_a_rank_is_the_share_of_the_others_that_lie_below_and_half_of_the_equal():
    assert [rank(value, [3, 1, 3, 9]) for value in (3, 1, 3, 9)] == [0.5, 0.0, 0.5, 1.0]


def test_the_best_are_one_together():
    assert [best(value, [2, 5, 5]) for value in (2, 5, 5)] == [0.0, 0.5, 0.5]


def test_groups_are_ranked_by_themselves_and_scale_does_not_matter():
    assert values(judged([[1, 2, 3], [10, 200, 30]])) == [0.0, 0.5, 1.0, 0.0, 1.0, 0.5]


def test_the_other_reward_s_value_is_a_part():
    assert [record.parts["value"] for record in judged([[7, 9]], mode="best")] == [7.0, 9.0]


def test_equal_images_all_rank_in_the_middle():
    assert values(judged([[4, 4, 4]])) == [0.5, 0.5, 0.5]


def test_an_image_without_a_value_has_no_place_and_the_others_are_ranked_without_it():
    records = judged([[0, 1, 7]], kind="Odd")  # .5, NaN, True
    assert values(records) == [0.0, None, 1.0]
    assert "nan" in records[1].reason


def test_one_value_alone_has_nobody_to_be_compared_with():
    records = judged([[0, 1]], kind="Odd")
    assert values(records) == [None, None]
    assert "no other image of its group" in records[0].reason


def test_a_groupwise_reward_can_be_ranked_too():
    assert values(judged([[9, 3, 5]], mode="best", kind="Ranks")) == [1.0, 0.0, 0.0]


def test_too_few_answers_are_a_failure():
    assert {record.reason for record in judged([[1, 2]], kind="Short")} == {
        "ValueError: the ranked reward gave 1 answers for 2 images"
    }


def test_the_other_reward_checks_the_prompts():
    options = {"kind": "ocr"}
    with pytest.raises(ValueError, match="it quotes no text to read"):
        check_requirements(
            RewardConfig(name="r", kind="ranked", options=options), [Prompt("p:1", "a dog")]
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ocr", "mode": "worst"}, "mode='worst'; allowed: rank, best"),
        ({"kind": "human"}, "people's likes are late"),
        ({}, "option 'kind' is missing"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RewardWorker(RewardConfig(name="r", kind="ranked", options=options))
