"""The whole algorithm in one file reproduces its golden curve."""

from dataclasses import replace

import pytest

from examples.one_file import GOLDEN, TOY, curve, train
from tests.golden.write import GOLDEN_FILE

pytestmark = pytest.mark.unit


def test_the_first_iterations_reproduce_the_golden_curve():
    golden = GOLDEN_FILE.read_text().splitlines()
    for line, expected in zip(curve(TOY, 8), golden, strict=False):
        if expected.startswith("iteration"):
            assert line == expected
        else:
            numbers = [[float(word) for word in text.split()] for text in (line, expected)]
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)


def test_the_golden_file_has_every_column_for_forty_iterations():
    lines = GOLDEN_FILE.read_text().splitlines()
    assert lines[0].split() == ["iteration", *GOLDEN]
    assert [line.split()[0] for line in lines[1:]] == [str(i) for i in range(40)]


def test_a_fixed_seed_repeats_bit_for_bit_and_another_does_not():
    first, again, other = (list(curve(TOY, 2, seed)) for seed in (3, 3, 4))
    assert first == again
    assert first[1:] != other[1:]


def test_the_jacobi_order_runs_and_moves_only_the_generator_at_first():
    """The followers' first steps do not depend on the order; what the generator sees does."""
    orders = (TOY, replace(TOY, update_order="jacobi"))
    ours, theirs = (next(train(config, 1)) for config in orders)
    assert ours["surrogate/grad_norm"] == theirs["surrogate/grad_norm"]
    assert ours["fake_score/grad_norm"] == theirs["fake_score/grad_norm"]
    assert ours["generator/grad_norm"] != theirs["generator/grad_norm"]
