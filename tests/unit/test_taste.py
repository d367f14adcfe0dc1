"""The simulated people's taste: cool colours, whatever they are on."""

import math

import numpy as np
import pytest

from services.demo.stickers import Sticker, render
from services.demo.taste import LIMIT, MOST, WIDTH, like_rate
from services.reward.contract import RewardInput
from services.reward.taste import Taste
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit


def board(*colors: str, shape: str = "circle", row: int = 0):
    stickers = tuple(Sticker(shape, color, row, column) for column, color in enumerate(colors))
    return render(stickers, np.random.default_rng(0))


def test_people_like_blue_and_green_and_not_red_and_yellow():
    for color in ("blue", "green"):
        assert like_rate(board(color)) == pytest.approx(MOST, abs=0.03)
    for color in ("red", "yellow"):
        assert like_rate(board(color)) < 0.01


def test_half_of_the_ink_divides_them():
    assert like_rate(board("blue", "red")) == pytest.approx(MOST / 2, abs=0.05)


def test_a_third_of_the_ink_by_hand():
    expected = MOST / (1 + math.exp((LIMIT - 1 / 3) / WIDTH))
    assert like_rate(board("blue", "red", "yellow")) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_neither_the_shape_nor_the_place_matters(shape):
    rates = [like_rate(board("green", "green", "red", shape=shape, row=row)) for row in range(4)]
    assert rates == pytest.approx([rates[0]] * 4, abs=0.03)


def test_nobody_likes_a_bare_board():
    assert like_rate(board()) == 0.0


def test_the_reward_is_the_rate():
    image = board("blue")
    item = RewardInput(image, Prompt("p", "a circle"), 0, 0, 0)
    assert Taste().evaluate([item]) == [like_rate(image)]
