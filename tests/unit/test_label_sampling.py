"""Whom people are asked about: fresh first, then contrast, within share, places and budget."""

import pytest
import torch

from services.config import HumanOptions
from services.reward.label_sampling import LabelSampling
from tdm_core.types import ImageGroup, Prompt, RewardRecord

pytestmark = pytest.mark.unit

SIZE = 3


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sampling(clock=None, **options) -> LabelSampling:
    return LabelSampling(HumanOptions(url="http://127.0.0.1:1", **options), clock or Clock())


def group(group_id: int, version: int = 0) -> ImageGroup:
    images = torch.zeros(SIZE, 1, 3, 2, 2, dtype=torch.uint8)
    return ImageGroup(group_id, Prompt(f"p{group_id}", "a circle"), version, images)


def judged(group_id: int, *values: float | None, reward: str = "r") -> list[RewardRecord]:
    return [
        RewardRecord(group_id, i, 0, reward, "failed" if v is None else "ready", v)
        for i, v in enumerate(values)
    ]


def sent(choice) -> list[int]:
    return [candidate.images.group_id for candidate in choice.send]


def let_go(choice) -> list[int]:
    return [candidate.images.group_id for candidate in choice.let_go]


def test_everything_is_sent_where_nothing_is_short():
    chosen = sampling()
    chosen.offer([group(0), group(1)], [])
    assert sent(chosen.choose(0, 0)) == [0, 1]
    assert sent(chosen.choose(2, 0)) == []


def test_the_freshest_go_first_and_then_the_largest_contrast():
    chosen = sampling(max_open_groups=2)
    records = judged(0, 0.0, 0.5, 1.0) + judged(1, 0.5, 0.5, 0.5) + judged(2, 0.4, 0.5, 0.6)
    chosen.offer([group(0), group(1), group(2), group(3, version=1)], records)
    assert sent(chosen.choose(0, 1)) == [3, 0]
    assert sent(chosen.choose(1, 1)) == [2]


def test_contrast_is_in_units_of_each_rewards_largest_and_ignores_what_is_missing():
    chosen = sampling(max_open_groups=1)
    large = judged(0, 0, 1000, 0, reward="kB")
    small = judged(1, 0, 1, None) + judged(1, 0, 900, 0, reward="kB")
    chosen.offer([group(0), group(1)], large + small)
    choice = chosen.choose(0, 0)
    assert sent(choice) == [1]
    assert choice.send[0].automatic == {"r": [0, 1, None], "kB": [0, 900, 0]}


def test_a_share_of_the_groups_is_sent_and_the_rest_let_go_when_it_is_old():
    chosen = sampling(fraction=0.25, max_candidate_age=0)
    num_sent = num_gone = 0
    for version in range(40):
        chosen.offer([group(2 * version, version), group(2 * version + 1, version)], [])
        choice = chosen.choose(0, version)
        num_sent, num_gone = num_sent + len(choice.send), num_gone + len(choice.let_go)
    assert num_sent == pytest.approx(20, abs=1)
    assert num_sent + num_gone + chosen.num_candidates == 80


def test_places_that_were_full_are_no_credit_for_later():
    chosen = sampling(fraction=0.5, max_open_groups=4, max_candidate_age=0)
    for version in range(20):
        chosen.offer([group(version, version)], [])
        chosen.choose(4, version)
    chosen.offer([group(99, 20)], [])
    assert len(chosen.choose(0, 20).send) <= 2


def test_candidates_are_let_go_after_their_age():
    chosen = sampling(max_open_groups=1, max_candidate_age=1)
    chosen.offer([group(0), group(1)], [])
    assert sent(chosen.choose(0, 0)) == [0]
    assert let_go(chosen.choose(1, 1)) == []
    assert let_go(chosen.choose(1, 2)) == [1]
    assert chosen.num_candidates == 0


def test_the_budget_fills_evenly_over_the_hour():
    clock = Clock()
    chosen = sampling(clock, groups_per_hour=120, max_candidate_age=100)
    chosen.offer([group(i) for i in range(10)], [])
    assert len(chosen.choose(0, 0).send) == 2  # a minute's worth
    assert len(chosen.choose(0, 0).send) == 0
    clock.now = 30
    assert len(chosen.choose(0, 0).send) == 1
    clock.now = 3000
    assert len(chosen.choose(0, 0).send) == 2


def test_what_could_not_be_sent_waits_again():
    chosen = sampling()
    chosen.offer([group(0), group(1)], [])
    choice = chosen.choose(0, 0)
    chosen.put_back(choice.send[1:])
    assert sent(chosen.choose(1, 0)) == [1]
