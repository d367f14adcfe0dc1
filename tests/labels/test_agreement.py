"""Krippendorff's alpha, against values worked out by hand and from the literature."""

import pytest

from services.labels.agreement import alpha

pytestmark = pytest.mark.unit


def test_full_agreement_is_one_and_chance_is_about_zero():
    assert alpha([["like", "like"], ["dislike", "dislike"]]) == 1
    halves = [["a", "a"], ["a", "b"], ["b", "a"], ["b", "b"]] * 100
    assert alpha(halves) == pytest.approx(0, abs=0.01)


def test_the_textbook_example():
    """Krippendorff (2011), two observers, ten units, binary: alpha = 0.095."""
    first, second = "0100000010", "1110010000"
    assert alpha(zip(first, second, strict=True)) == pytest.approx(0.095, abs=5e-4)


def test_units_with_one_value_say_nothing():
    known = [["a", "a"], ["a", "b"], ["b", "b", "a"]]
    assert alpha([*known, ["b"], []]) == alpha(known)


@pytest.mark.parametrize("units", [[], [["a"]], [["a", "a"], ["a", "a"]]])
def test_where_nothing_can_be_told_there_is_no_number(units):
    assert alpha(units) is None
