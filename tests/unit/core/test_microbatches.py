"""Passes: who gets which row, slot, tau and noise (docs/algorithm.md 2.4)."""

from collections import Counter

import pytest
import torch

from tdm_core.microbatches import passes
from tests.core_cases import algorithm, fresh, one_pass

pytestmark = pytest.mark.unit

SIZES = (4, 3, 5, 4)
CONFIG = algorithm(num_groups=4, slots_per_update=2, groups_per_microbatch=2)
worlds = pytest.mark.parametrize("world_size", [1, 2, 4, 8, 20])


def every_pass(world_size, config=CONFIG, sizes=SIZES, step=0):
    return [
        list(passes(fresh(sizes), config, 0, step, rank, world_size)) for rank in range(world_size)
    ]


@worlds
def test_row_weights_sum_to_one_over_ranks_microbatches_and_slots(world_size):
    everything = [p for ps in every_pass(world_size) for p in ps]
    assert float(sum(p.weight_N.sum() for p in everything)) == pytest.approx(1.0, abs=1e-15)


@worlds
def test_every_row_is_dealt_to_exactly_one_rank(world_size):
    by_rank = every_pass(world_size)
    for turn in range(len(by_rank[0])):
        rows = torch.cat([ps[turn].rows_N for ps in by_rank])
        microbatch = turn // 2
        assert sorted(rows.tolist()) == list(range(7 * microbatch, 7 + 9 * microbatch))


def test_unequal_groups_weigh_alike():
    for p in every_pass(1)[0]:
        sums = torch.zeros(2, dtype=torch.float64).index_add(0, p.group_N, p.weight_N)
        assert torch.allclose(sums, torch.full_like(sums, 1 / 8), atol=1e-15)
        assert p.share == pytest.approx(0.25)


def test_a_row_keeps_its_boundaries_prompt_and_place():
    batch = fresh(SIZES)
    for p in (p for ps in every_pass(2) for p in ps):
        assert torch.equal(p.boundaries_NKCHW, batch.boundaries_NKCHW[p.rows_N])
        assert torch.equal(p.conditioning["label"], batch.conditioning["label"][p.rows_N])
        ids = torch.tensor(p.group_ids)[p.group_N]
        starts = torch.tensor([0, 4, 7, 12])
        assert torch.equal(starts[ids] + p.member_N, p.rows_N)


def test_microbatches_hold_whole_groups():
    assert [p.group_ids for p in every_pass(1)[0]] == [(0, 1), (0, 1), (2, 3), (2, 3)]


@worlds
@pytest.mark.parametrize("shared", [True, False], ids=["per_slot", "per_sample"])
def test_tau_of_a_sample_is_the_same_on_whichever_rank_it_lies(world_size, shared):
    (alone,) = every_pass(1)
    for turn, whole in enumerate(alone):
        tau = whole.draw_tau("kl_tau", whole.slot, 0.0, shared=shared)
        for ps in every_pass(world_size):
            mine = ps[turn].draw_tau("kl_tau", ps[turn].slot, 0.0, shared=shared)
            assert torch.equal(mine, tau[ps[turn].rows_N - whole.rows_N[0]])
        assert len(tau.unique()) == (1 if shared else len(tau))


@worlds
def test_noise_of_a_sample_is_the_same_on_whichever_rank_it_lies(world_size):
    (alone,) = every_pass(1)
    for turn, whole in enumerate(alone):
        noise = whole.draw_noise("fake_noise", shared=False)
        for ps in every_pass(world_size):
            mine = ps[turn].draw_noise("fake_noise", shared=False)
            assert torch.equal(mine, noise[ps[turn].rows_N - whole.rows_N[0]])


def test_group_noise_is_equal_within_a_group_and_different_between():
    p = one_pass(fresh(SIZES), CONFIG)
    noise = p.draw_noise("surrogate_noise", shared=True)
    first, second = noise[p.group_N == 0], noise[p.group_N == 1]
    assert torch.equal(first, first[:1].expand_as(first))
    assert torch.equal(second, second[:1].expand_as(second))
    assert not torch.equal(first[0], second[0])


def test_sample_noise_is_different_for_every_sample():
    noise = one_pass(fresh(SIZES), CONFIG).draw_noise("fake_noise", shared=False)
    assert len(noise.flatten(1).unique(dim=0)) == len(noise)


def test_streams_updates_microbatches_and_turns_all_draw_anew():
    taus = [
        float(p.draw_tau(stream, 3, 0.0, shared=True)[0])
        for step in (0, 1)
        for p in every_pass(1, step=step)[0]
        for stream in ("kl_tau", "surrogate_tau")
    ]
    assert len(set(taus)) == len(taus) == 16


def test_tau_lies_above_the_boundary_of_its_slot():
    p = one_pass(fresh(), algorithm())
    for slot in range(4):
        tau = p.draw_tau("kl_tau", slot, 0.0, shared=False)
        assert float(tau.min()) > p.sigmas[slot + 1]
        assert float(tau.max()) < 1


def test_slots_are_drawn_without_replacement_and_alike_on_all_ranks():
    config = algorithm(slots_per_update=3)
    for step in range(20):
        ranks = [[p.slot for p in ps] for ps in every_pass(4, config, (4, 4), step)]
        assert all(slots == ranks[0] for slots in ranks)
        assert len(set(ranks[0])) == 3


def test_slots_are_uniform():
    batch, config = fresh((2,)), algorithm(num_groups=1, slots_per_update=2)
    drawn = Counter(p.slot for step in range(600) for p in passes(batch, config, 0, step))
    assert all(abs(drawn[slot] / 1200 - 0.25) < 0.03 for slot in range(4))


def test_surrogate_slots_follow_their_own_law_alike_on_all_ranks():
    batch, config = fresh((2,)), algorithm(num_groups=1, slots_per_update=2)
    drawn = Counter(p.surrogate_slot for step in range(600) for p in passes(batch, config, 0, step))
    for slot, share in enumerate((0.1, 0.2, 0.3, 0.4)):
        assert drawn[slot] / 1200 == pytest.approx(share, abs=0.04)
    ranks = every_pass(2, config, (2,))
    assert [p.surrogate_slot for p in ranks[0]] == [p.surrogate_slot for p in ranks[1]]


def test_a_rank_without_rows_still_walks_every_pass():
    empty = every_pass(20)[19]
    assert len(empty) == 4
    for p in empty:
        assert len(p.rows_N) == 0
        assert p.draw_tau("kl_tau", p.slot, 0.0, shared=False).shape == (0,)
        assert p.draw_noise("fake_noise", shared=True).shape == (0, 2, 1, 2)


def test_a_pass_is_in_the_dtype_of_its_latents():
    p = one_pass(fresh(dtype=torch.float32), algorithm())
    assert p.draw_tau("kl_tau", 0, 0.0, shared=False).dtype == torch.float32
    assert p.draw_noise("fake_noise", shared=False).dtype == torch.float32
    assert p.weight_N.dtype == torch.float64
