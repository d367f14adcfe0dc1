"""GenEval's rules, one test for each rule and each boundary of it."""

from dataclasses import dataclass

import pytest

from services.reward.geneval_rules import (
    objects_by_class,
    relations_between,
    score_soft,
    score_strict,
)

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Seen:
    class_name: str
    color: str | None = None
    score: float = 0.95
    box: tuple[float, float, float, float] = (0, 0, 10, 10)


def at(x: float, y: float, size: float = 10.0) -> tuple[float, float, float, float]:
    """A square box of that size centred on (x, y)."""
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def two_dogs(tag: str = "counting") -> dict:
    return {
        "tag": tag,
        "include": [{"class": "dog", "count": 2}],
        "exclude": [{"class": "dog", "count": 3}],
        "prompt": "two dogs",
    }


def dog_left_of_cat() -> dict:
    return {
        "tag": "position",
        "prompt": "a dog left of a cat",
        "include": [
            {"class": "cat", "count": 1},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ],
    }


def test_presence_takes_an_object_above_the_threshold_only():
    dog = {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}
    assert score_strict(dog, [Seen("dog", score=0.31)]) == (True, "")
    assert score_strict(dog, [Seen("dog", score=0.3)]) == (False, "expected dog>=1, found 0")
    assert score_strict(dog, [Seen("cat")])[0] is False
    assert score_strict(dog, [Seen("dog", score=0.5)], threshold=0.6)[0] is False


def test_counting_uses_its_own_threshold():
    dogs = [Seen("dog"), Seen("dog", score=0.9)]
    assert score_strict(two_dogs(), dogs)[0] is False
    assert score_strict(two_dogs("two_object"), dogs)[0] is True
    assert score_strict(two_dogs(), dogs, counting_threshold=0.8)[0] is True


def test_more_objects_than_asked_pass_unless_excluded():
    without_exclude = {key: value for key, value in two_dogs().items() if key != "exclude"}
    assert score_strict(without_exclude, [Seen("dog")] * 5)[0] is True
    assert score_strict(two_dogs(), [Seen("dog")] * 2)[0] is True
    assert score_strict(two_dogs(), [Seen("dog")] * 3) == (False, "expected dog<3, found 3")


def test_no_more_than_sixteen_objects_of_a_class_are_kept():
    metadata = {
        "include": [{"class": "dog", "count": 1}],
        "exclude": [{"class": "dog", "count": 17}],
    }
    assert len(objects_by_class(metadata, [Seen("dog")] * 40)["dog"]) == 16
    assert score_strict(metadata, [Seen("dog")] * 40)[0] is True


def test_detections_of_a_class_are_sorted_by_confidence():
    objects = objects_by_class({}, [Seen("dog", score=s) for s in (0.4, 0.9, 0.2, 0.6)])
    assert [one.score for one in objects["dog"]] == [0.9, 0.6, 0.4]


def test_overlapping_detections_are_not_suppressed():
    assert score_strict(two_dogs(), [Seen("dog", box=at(5, 5)), Seen("dog", box=at(5, 5))])[0]


def test_colour_is_judged_on_the_most_confident_objects():
    metadata = {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]}
    red, blue = Seen("dog", "red", 0.8), Seen("dog", "blue", 0.9)
    assert score_strict(metadata, [red])[0] is True
    assert score_strict(metadata, [red, blue]) == (False, "expected red dog>=1, found 0")
    assert score_strict(metadata, [Seen("dog", None)])[0] is False


def test_every_one_of_the_counted_objects_must_have_the_colour():
    metadata = {"include": [{"class": "dog", "count": 2, "color": "red"}]}
    assert score_strict(metadata, [Seen("dog", "red"), Seen("dog", "red")])[0] is True
    assert score_strict(metadata, [Seen("dog", "red"), Seen("dog", "blue")])[0] is False


@pytest.mark.parametrize(
    ("offset", "relations"),
    [
        ((-20, 0), {"left of"}),
        ((20, 0), {"right of"}),
        ((0, -20), {"above"}),
        ((0, 20), {"below"}),
        ((-20, -20), {"left of", "above"}),
        ((0, 0), set()),
        ((2, 0), set()),
        ((2.0005, 0), set()),
        ((3.9, 0), set()),
        ((4.1, 0), {"right of"}),
        ((20, 40), {"below"}),
    ],
)
def test_relation_follows_the_reduced_offset(offset, relations):
    assert relations_between(at(*offset), at(0, 0)) == relations


def test_relation_at_exactly_half_is_no_relation():
    assert relations_between(at(4, 0), at(0, 0)) == set()


def test_relation_uses_both_extents_and_corners_in_any_order():
    assert relations_between(at(5, 0, 10), at(0, 0, 10)) == {"right of"}
    assert relations_between(at(5, 0, 10), at(0, 0, 30)) == set()
    assert relations_between((10, 5, 0, -5), at(0, 0)) == {"right of"}


def test_position_needs_the_relation_the_right_way_round():
    dog, cat = Seen("dog", box=at(0, 0)), Seen("cat", box=at(30, 0))
    assert score_strict(dog_left_of_cat(), [dog, cat])[0] is True
    swapped = [Seen("dog", box=at(30, 0)), Seen("cat", box=at(0, 0))]
    assert score_strict(dog_left_of_cat(), swapped)[0] is False


def test_position_holds_between_every_pair_of_matched_objects():
    metadata = {
        "include": [
            {"class": "cat", "count": 2},
            {"class": "dog", "count": 1, "position": ["left of", 0]},
        ]
    }
    dog, right_cat = Seen("dog", box=at(0, 0)), Seen("cat", box=at(30, 0))
    assert score_strict(metadata, [dog, right_cat, Seen("cat", box=at(60, 0))])[0] is True
    assert score_strict(metadata, [dog, right_cat, Seen("cat", box=at(-30, 0))])[0] is False


def test_position_fails_when_its_target_clause_failed():
    metadata = dog_left_of_cat()
    metadata["include"][0]["color"] = "red"
    seen = [Seen("dog", box=at(0, 0)), Seen("cat", "blue", box=at(30, 0))]
    assert score_strict(metadata, seen)[1].endswith("no target for dog to be left of")


def test_soft_counts_partial_presence():
    metadata = two_dogs("two_object")
    assert score_soft(metadata, []) == pytest.approx(0.5)
    assert score_soft(metadata, [Seen("dog")]) == pytest.approx((0.5 + 1) / 2)
    assert score_soft(metadata, [Seen("dog")] * 2) == 1.0
    assert score_soft(metadata, [Seen("dog")] * 3) == pytest.approx((1 + 0) / 2)


@pytest.mark.parametrize(
    ("found", "soft"), [(0, 0.5), (1, 0.75), (2, 1.0), (3, 0.25), (4, 0.0), (9, 0.0)]
)
def test_soft_counting_penalises_both_too_few_and_too_many(found, soft):
    assert score_soft(two_dogs(), [Seen("dog")] * found) == pytest.approx(soft)


def test_soft_colour_is_the_fraction_of_matching_objects():
    metadata = {"include": [{"class": "dog", "count": 2, "color": "red"}]}
    assert score_soft(metadata, [Seen("dog", "red"), Seen("dog", "blue")]) == pytest.approx(0.75)
    assert score_soft(metadata, [Seen("dog", "red")]) == pytest.approx(0.5)


def test_soft_position_is_one_or_zero_and_ignores_colour():
    metadata = dog_left_of_cat()
    dog, cat = Seen("dog", box=at(0, 0)), Seen("cat", box=at(30, 0))
    assert score_soft(metadata, [dog, cat]) == 1.0
    assert score_soft(metadata, [dog]) == pytest.approx(1 / 3)
    assert score_soft(metadata, [Seen("dog", box=at(60, 0)), cat]) == pytest.approx(2 / 3)
    metadata["include"][0]["color"] = "red"
    assert score_soft(metadata, [dog, cat]) == pytest.approx(3 / 4)


def test_soft_is_one_exactly_when_strict_is_true():
    for found in range(6):
        seen = [Seen("dog")] * found
        assert (score_soft(two_dogs(), seen) == 1.0) == score_strict(two_dogs(), seen)[0]


def test_the_sixteenth_object_counts_and_the_seventeenth_does_not():
    metadata = {
        "include": [{"class": "dog", "count": 16}],
        "exclude": [{"class": "dog", "count": 17}],
    }
    assert score_strict(metadata, [Seen("dog")] * 15)[0] is False
    assert score_strict(metadata, [Seen("dog")] * 16)[0] is True
    assert score_strict(metadata, [Seen("dog")] * 17)[0] is True
    sixteen_excluded = {"exclude": [{"class": "dog", "count": 16}]}
    assert score_strict(sixteen_excluded, [Seen("dog")] * 40)[1] == "expected dog<16, found 16"


def test_the_limit_of_sixteen_is_for_each_class():
    metadata = {
        "include": [{"class": "dog", "count": 16}, {"class": "cat", "count": 16}],
    }
    assert score_strict(metadata, [Seen("dog")] * 20 + [Seen("cat")] * 20)[0] is True


def test_an_excluded_object_counts_only_above_the_tags_threshold():
    metadata = two_dogs()
    for score, passes in ((0.9, True), (0.9001, False)):
        assert score_strict(metadata, [Seen("dog")] * 2 + [Seen("dog", score=score)])[0] is passes
    metadata = two_dogs("two_object")
    for score, passes in ((0.3, True), (0.3001, False)):
        assert score_strict(metadata, [Seen("dog")] * 2 + [Seen("dog", score=score)])[0] is passes


def test_an_excluded_class_fails_the_image_whatever_else_holds():
    metadata = {
        "include": [{"class": "dog", "count": 1}],
        "exclude": [{"class": "cat", "count": 1}],
    }
    assert score_strict(metadata, [Seen("dog")])[0] is True
    assert score_strict(metadata, [Seen("dog"), Seen("cat")]) == (False, "expected cat<1, found 1")


@pytest.mark.parametrize("offset", [(4, 0), (-4, 0), (0, 4), (0, -4)])
def test_exactly_half_of_the_norm_is_no_relation_in_any_direction(offset):
    just_more = tuple(1.001 * part for part in offset)
    assert relations_between(at(*offset), at(0, 0)) == set()
    assert len(relations_between(at(*just_more), at(0, 0))) == 1


def test_the_norm_is_that_of_the_offset_before_it_is_reduced():
    # Reduced (3, 3) over |(5, 5)| is 0.42 on each axis; over |(3, 3)| it would be 0.71.
    assert relations_between(at(5, 5), at(0, 0)) == set()
    # Reduced (18, 18) over |(20, 20)| is 0.64.
    assert relations_between(at(20, 20), at(0, 0)) == {"right of", "below"}


def test_each_axis_is_reduced_by_the_extents_along_it():
    # A wide, flat box: 0.1 x (40 + 40) = 8 of 12 go in x, 0.1 x (2 + 2) = 0.4 of 12 in y.
    wide = (-20, -1, 20, 1)
    moved = tuple(edge + 12 for edge in wide)
    # (4, 11.6) / 16.97 = (0.24, 0.68)
    assert relations_between(moved, wide) == {"below"}
    assert relations_between(wide, moved) == {"above"}


def test_an_offset_that_the_reduction_eats_has_no_relation():
    assert relations_between(at(1.9, 0), at(0, 0)) == set()
    assert relations_between(at(0, -2), at(0, 0)) == set()


def test_position_is_judged_on_the_most_confident_objects_of_both_clauses():
    metadata = dog_left_of_cat()
    cat, dog = Seen("cat", score=0.9, box=at(30, 0)), Seen("dog", score=0.9, box=at(0, 0))
    unsure_cat, unsure_dog = (
        Seen("cat", score=0.8, box=at(-60, 0)),
        Seen("dog", score=0.8, box=at(90, 0)),
    )
    assert score_strict(metadata, [unsure_cat, unsure_dog, cat, dog])[0] is True
    sure_dog = Seen("dog", score=0.99, box=at(90, 0))
    assert score_strict(metadata, [cat, dog, sure_dog])[0] is False


def test_every_object_of_the_clause_must_stand_so():
    metadata = dog_left_of_cat()
    metadata["include"][1]["count"] = 2
    cat, left = Seen("cat", box=at(30, 0)), Seen("dog", box=at(0, 0))
    assert score_strict(metadata, [cat, left, Seen("dog", box=at(-5, 0))])[0] is True
    assert score_strict(metadata, [cat, left, Seen("dog", box=at(60, 0))])[0] is False


def test_a_clause_of_the_wrong_colour_is_not_asked_for_its_position():
    metadata = dog_left_of_cat()
    metadata["include"][1]["color"] = "red"
    seen = [Seen("cat", box=at(30, 0)), Seen("dog", "blue", box=at(60, 0))]
    assert score_strict(metadata, seen) == (False, "expected red dog>=1, found 0")


def test_clauses_of_one_class_may_share_their_objects():
    metadata = {
        "include": [{"class": "dog", "count": 1}, {"class": "dog", "count": 1, "color": "red"}],
    }
    assert score_strict(metadata, [Seen("dog", "red")])[0] is True
