"""Which prompt a group gets is a function of its id."""

import pytest

from tdm_core.prompts import prompt_index

pytestmark = pytest.mark.unit


def order(seed: int, epoch: int, count: int = 7) -> list[int]:
    return [prompt_index(seed, epoch * count + place, count) for place in range(count)]


@pytest.mark.parametrize("epoch", range(3))
def test_every_epoch_visits_every_prompt_once(epoch):
    assert sorted(order(0, epoch)) == list(range(7))


def test_epochs_and_seeds_have_their_own_order():
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_the_order_is_the_same_on_every_machine():
    assert order(0, 0) == [6, 1, 2, 4, 0, 5, 3]
