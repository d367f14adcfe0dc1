"""Does the surrogate order images as their rewards do."""

import math

import pytest
import torch
from torch import Tensor

from tdm_core.seeding import rng_for
from tdm_core.surrogate_agreement import surrogate_agreement

NAN = math.nan


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def of_one_step(own: list[float], advantages: list[float], sizes: list[int]) -> dict[str, float]:
    valid = torch.tensor([not math.isnan(value) for value in advantages])[:, None]
    columns = (torch.tensor(each, dtype=torch.float64)[:, None] for each in (own, advantages))
    own_N1, advantages_N1 = columns
    return surrogate_agreement(own_N1, advantages_N1.nan_to_num(0), valid, sizes)


def test_by_hand() -> None:
    # Group one: pairs (1,2) wrong, (1,3) tied, (2,3) right. Group two: one pair, right.
    found = of_one_step([1.0, 4.0, 1.0, 0.0, 2.0], [3.0, 1.0, -4.0, -1.0, 1.0], [3, 2])
    assert found["surrogate/agreement/step_0"] == (0 + 0.5 + 1 + 1) / 4
    assert found["surrogate/margin/step_0"] == ((3 + 4 - 4) / 3 + (0 + 2) / 2) / 2


def test_the_order_of_the_advantages_is_one_and_its_reverse_zero() -> None:
    advantages = [-1.5, -0.5, 0.5, 1.5]
    assert of_one_step(advantages, advantages, [4])["surrogate/agreement/step_0"] == 1
    found = of_one_step(advantages[::-1], advantages, [4])
    assert found["surrogate/agreement/step_0"] == 0
    assert found["surrogate/margin/step_0"] < 0


def test_a_surrogate_that_is_its_own_reference_is_at_chance() -> None:
    found = of_one_step([0.0] * 3, [1.0, 0.0, -1.0], [3])
    assert found == {"surrogate/agreement/step_0": 0.5, "surrogate/margin/step_0": 0.0}


def test_groups_are_compared_within_themselves_alone() -> None:
    """Across them everything is upside down."""
    found = of_one_step([101.0, 100.0, 2.0, 1.0], [-1.0, -2.0, 2.0, 1.0], [2, 2])
    assert found["surrogate/agreement/step_0"] == 1


def test_what_is_missing_is_no_number() -> None:
    with_missing = of_one_step([1.0, 9.0, 2.0, NAN], [1.0, NAN, 2.0, -5.0], [4])
    assert with_missing == of_one_step([1.0, 2.0], [1.0, 2.0], [2])


@pytest.mark.parametrize(
    ("own", "advantages", "sizes"),
    [
        ([1.0, 2.0], [0.0, 0.0], [2]),
        ([1.0, 2.0], [NAN, NAN], [2]),
        ([NAN, NAN], [1.0, -1.0], [2]),
        ([1.0, 2.0], [1.0, -1.0], [1, 1]),
        ([math.inf, 2.0], [1.0, -1.0], [2]),
    ],
    ids=["no contrast", "no reward", "not asked", "alone in their groups", "diverged"],
)
def test_what_cannot_be_told_is_not(
    own: list[float], advantages: list[float], sizes: list[int]
) -> None:
    assert of_one_step(own, advantages, sizes) == {}


def test_each_step_has_its_own() -> None:
    own = tensor([1.0, NAN, 2.0], [2.0, NAN, 1.0])
    advantages = tensor([1.0, 1.0, 1.0], [-1.0, -1.0, -1.0])
    found = surrogate_agreement(own, advantages, torch.ones(2, 3, dtype=torch.bool), [2])
    assert found == {
        "surrogate/agreement/step_0": 0,
        "surrogate/margin/step_0": -0.5,
        "surrogate/agreement/step_2": 1,
        "surrogate/margin/step_2": 0.5,
    }


def test_neither_the_order_of_groups_nor_of_images_matters() -> None:
    rng = rng_for(0, "test_agreement")
    own, advantages = torch.randn(2, 12, 4, generator=rng, dtype=torch.float64)
    valid = torch.rand(12, 4, generator=rng) < 0.8
    told = surrogate_agreement(own, advantages, valid, [3, 4, 5])
    assert len(told) == 8
    groups = torch.arange(12).split([3, 4, 5])
    rows = torch.cat([groups[2].flip(0), groups[0].roll(1), groups[1].flip(0)])
    again = surrogate_agreement(own[rows], advantages[rows], valid[rows], [5, 3, 4])
    assert again == pytest.approx(told, rel=1e-12)
