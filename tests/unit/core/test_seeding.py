"""Every draw is a function of its key."""

import pytest
import torch

from tdm_core.seeding import normal, rng_for

pytestmark = pytest.mark.unit


def first(*key) -> float:
    return float(torch.rand(1, generator=rng_for(*key), dtype=torch.float64))


def test_equal_keys_draw_alike_whatever_the_global_state():
    torch.manual_seed(1)
    one = first(0, "rollout", 3)
    torch.manual_seed(2)
    assert first(0, "rollout", 3) == one


def test_every_part_of_the_key_matters():
    keys = [(0, "a", 1, 2), (1, "a", 1, 2), (0, "b", 1, 2), (0, "a", 2, 1), (0, "a", 12), (0, "a")]
    assert len({first(*key) for key in keys}) == len(keys)


def test_a_draw_leaves_the_global_source_alone():
    before = torch.random.get_rng_state()
    normal((3,), rng_for(0, "x"), torch.zeros(1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_noise_has_the_dtype_of_what_it_joins(dtype):
    assert normal((2, 3), rng_for(0, "x"), torch.zeros(1, dtype=dtype)).dtype == dtype


def test_half_precision_noise_is_the_single_precision_draw_rounded():
    single = normal((8,), rng_for(0, "x"), torch.zeros(1))
    half = normal((8,), rng_for(0, "x"), torch.zeros(1, dtype=torch.bfloat16))
    assert torch.equal(single.bfloat16(), half)
