"""Averages of parameters and their schedules (docs/algorithm.md 3)."""

import pytest
import torch

from tdm_core.config import GeneratorConfig, SurrogateConfig
from tdm_core.ema import ema_update, generator_retained, surrogate_retained

pytestmark = pytest.mark.unit


def pair():
    rng = torch.Generator().manual_seed(0)
    return torch.randn((2, 7), generator=rng, dtype=torch.float64).unbind()


def test_retaining_nothing_copies_exactly():
    averaged, current = pair()
    ema_update([averaged], [current], 0.0)
    assert torch.equal(averaged, current)


def test_retaining_everything_changes_nothing():
    averaged, current = pair()
    before = averaged.clone()
    ema_update([averaged], [current], 1.0)
    assert torch.equal(averaged, before)


@pytest.mark.parametrize("retained", [0.001, 0.3, 0.97])
def test_the_average_keeps_the_retained_fraction(retained):
    averaged, current = pair()
    expected = retained * averaged + (1 - retained) * current
    ema_update([averaged], [current], retained)
    assert torch.allclose(averaged, expected, rtol=1e-13, atol=1e-15)


def test_the_current_parameters_stay_bitwise_as_they_are():
    averaged, current = pair()
    before = current.clone()
    ema_update([averaged], [current], 0.5)
    assert torch.equal(current, before)


def test_the_average_keeps_its_own_precision():
    averaged, current = torch.zeros(3), torch.ones(3, dtype=torch.bfloat16)
    ema_update([averaged], [current], 0.25)
    assert torch.equal(averaged, torch.full((3,), 0.75))


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ema_update([torch.zeros(1)], [], 0.5)


@pytest.mark.parametrize(
    ("step", "retained"),
    [(0, 0.001), (1, 0.002), (2, 0.003), (298, 0.299), (299, 0.3), (9999, 0.3)],
)
def test_the_surrogates_schedule_rises_to_its_cap_at_step_299(step, retained):
    assert surrogate_retained(step, SurrogateConfig()) == pytest.approx(retained, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "cap", "retained"), [(0, 0.9, 0.1), (8, 0.9, 0.5), (80, 0.9, 0.9), (900, 0.97, 0.97)]
)
def test_the_generators_schedule_is_capped(step, cap, retained):
    config = GeneratorConfig(ema_max=cap)
    assert generator_retained(step, config) == pytest.approx(retained)


@pytest.mark.parametrize(("step", "retained"), [(0, 1 / 3), (1, 0.5), (47, 0.96), (400, 0.98)])
def test_a_lower_ramp_averages_over_more_of_the_run(step, retained):
    config = GeneratorConfig(ema_max=0.98, ema_ramp=3)
    assert generator_retained(step, config) == pytest.approx(retained)
