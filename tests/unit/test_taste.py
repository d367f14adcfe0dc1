"""The simulated people's taste: high stickers, whatever they are."""

import numpy as np
import pytest

from services.demo.stickers import Sticker, render
from services.demo.taste import MOST, like_rate
from services.reward.contract import RewardInput
from services.reward.taste import Taste
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit


def board(*rows: int, color: str = "red"):
    stickers = tuple(Sticker("circle", color, row, column) for column, row in enumerate(rows))
    return render(stickers, np.random.default_rng(0))


def test_people_like_stickers_that_hang_high():
    rates = [like_rate(board(row)) for row in range(4)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9
    assert rates[1] == pytest.approx(MOST / 2, abs=0.1)
    assert rates[2] < 0.05


def test_the_color_does_not_matter_and_the_height_is_of_all_stickers_together():
    assert like_rate(board(0, color="blue")) == pytest.approx(like_rate(board(0)), abs=0.02)
    assert like_rate(board(0, 3)) == pytest.approx(like_rate(board(1, 2)), abs=0.05)


def test_nobody_likes_a_bare_board():
    assert like_rate(board()) == 0.0


def test_the_reward_is_the_rate():
    image = board(0)
    item = RewardInput(image, Prompt("p", "a circle"), 0, 0, 0)
    assert Taste().evaluate([item]) == [like_rate(image)]
