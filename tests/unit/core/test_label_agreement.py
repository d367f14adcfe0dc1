"""Agreement of people: the published example, chance, and spammers among them."""

import random

import pytest

from tdm_core.label_agreement import alpha_interval, dawid_skene, krippendorff_alpha

pytestmark = pytest.mark.unit


def test_alpha_of_krippendorffs_own_example():
    """Four observers, twelve units, five values, missing data: alpha is 0.743 (nominal)."""
    observers = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    rows = [[None if v == "." else v for v in observer.split()] for observer in observers]
    assert krippendorff_alpha(zip(*rows, strict=True)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_by_hand():
    assert krippendorff_alpha([[1, 1], [0, 0]]) == 1.0
    # Two units that always contradict: D_o = 1, D_e = 2 * 2 * 2 / (4 * 3).
    assert krippendorff_alpha([[1, 0], [0, 1]]) == pytest.approx(1 - 1 / (8 / 12))


def test_alpha_is_unknown_where_nothing_can_disagree():
    assert krippendorff_alpha([]) is None
    assert krippendorff_alpha([[1], [0, None]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None


def test_alpha_of_coins_is_near_zero():
    rng = random.Random(0)
    coins = [[rng.random() < 0.5 for _ in range(3)] for _ in range(4000)]
    assert krippendorff_alpha(coins) == pytest.approx(0, abs=0.03)


AGREED, SPLIT = [[1, 1], [0, 0]], [[1, 0], [0, 1]]


def test_the_interval_of_alpha_by_hand():
    """Of 16 groups half contradict themselves, so k of 16 drawn do, k ~ B(16, 1/2), whose 2.5% and
    97.5% quantiles are 4 and 12 (P(k < 4) = .011, P(k < 5) = .038). A group that does has D = 4,
    all have two votes of either kind: alpha = 1 - 63 * 4 k / (64^2 - 2 * 32^2)."""
    low, high = alpha_interval([AGREED, SPLIT] * 8)
    assert low == pytest.approx(1 - 63 * 4 * 12 / 2048)
    assert high == pytest.approx(1 - 63 * 4 * 4 / 2048)


def test_the_interval_holds_alpha_and_knows_neither_order_nor_who_is_alone():
    rng = random.Random(0)
    groups = [[[rng.random() < 0.6 for _ in range(2)] for _ in range(4)] for _ in range(40)]
    low, high = alpha_interval(groups)
    alpha = krippendorff_alpha(unit for group in groups for unit in group)
    assert -1 < low < alpha < high < 1
    assert alpha_interval([*reversed(groups), [[True]], [[False], []]]) == (low, high)
    together = [[unit for group in groups[n : n + 4] for unit in group] for n in range(0, 40, 4)]
    assert alpha_interval(together) != (low, high)


def test_the_interval_of_alpha_is_unknown_where_it_would_claim_too_much():
    assert alpha_interval([]) is None
    assert alpha_interval([AGREED, SPLIT] * 4 + [AGREED]) is None  # nine groups
    assert alpha_interval([AGREED] * 20) is None  # nobody disagrees: it would have no width
    # One image that is not liked by all: a third of the draws have no second value.
    assert alpha_interval([[[1, 1]]] * 19 + [[[1, 0]]]) is None


def votes_of(people: dict[str, tuple[float, float]], images: int = 400):
    """(image, person, liked) by people of given sensitivity and specificity; four in ten liked."""
    rng = random.Random(5)
    for image in range(images):
        answer = rng.random() < 0.4
        for person in rng.sample(sorted(people), 4):
            sensitivity, specificity = people[person]
            rate = sensitivity if answer else 1 - specificity
            yield image, person, rng.random() < rate


def test_dawid_skene_tells_spammers_from_the_careful():
    people = {f"careful{i}": (0.9, 0.85) for i in range(6)}
    people |= {"coin": (0.5, 0.5), "always": (0.95, 0.05)}
    found = dawid_skene(votes_of(people))
    assert found.prevalence == pytest.approx(0.4, abs=0.05)
    for person, (sensitivity, specificity) in people.items():
        assert found.sensitivity[person] == pytest.approx(sensitivity, abs=0.1)
        assert found.specificity[person] == pytest.approx(specificity, abs=0.1)
    informed = {person: found.informativeness(person) for person in people}
    assert max(informed["coin"], informed["always"]) < 0.3
    assert min(informed[f"careful{i}"] for i in range(6)) > 0.5


def test_dawid_skene_is_smooth_where_there_is_little():
    found = dawid_skene([("image", "person", True)])
    assert 0 < found.sensitivity["person"] < 1
    assert 0 < found.probability["image"] < 1
    with pytest.raises(ValueError, match="no votes"):
        dawid_skene([])


def test_dawid_skene_ends_by_its_limit():
    assert dawid_skene(votes_of({f"p{i}": (0.6, 0.6) for i in range(5)}), 3).num_iterations == 3
