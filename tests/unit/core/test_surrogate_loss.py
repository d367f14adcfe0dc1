"""Group preference: value, gradient, invariances, clips and degenerate groups (algorithm.md 3)."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import softplus

from tdm_core.batches import fresh_batch
from tdm_core.losses.surrogate import (
    frozen_rows,
    group_sums,
    preference_of,
    surrogate_loss,
    update_velocity_power,
)
from tdm_core.microbatches import passes
from tdm_core.noise_schedule import conditional_velocity, renoise
from tests.core_cases import (
    PLAIN_SURROGATE,
    AffineDenoiser,
    Recorder,
    RowDenoiser,
    algorithm,
    finite_difference,
    fresh,
    gradient,
    has_no_gradient,
    one_pass,
    rewarded,
    rollout_group,
    run_ranks,
    surrogate,
    surrogate_ema,
    teacher,
)

pytestmark = pytest.mark.unit

PLAIN = algorithm(surrogate=PLAIN_SURROGATE)
WITHOUT_CLIPS = {"ratio_clip": 0.0, "gate_threshold": 0.0}


def drawn(p):
    """x_tau and u of the pass, from the public draws."""
    j = p.surrogate_slot
    n, x_n = p.sigmas[j + 1], p.boundaries_NKCHW[:, j + 1]
    tau = p.draw_tau("surrogate_tau", j, p.config.surrogate.tau_min, shared=True)
    noise = p.draw_noise("surrogate_noise", shared=True)
    return renoise(x_n, noise, n, tau), conditional_velocity(x_n, noise, n, tau), tau


def errors(p, denoiser):
    x_tau, target, tau = drawn(p)
    return (target - denoiser(x_tau, tau, p.conditioning)).square().flatten(1).mean(1)


def objective(p, batch, phi, psi):
    """(1/beta) mean_g softplus(S_g), a group at a time, nothing detached."""
    beta, j = p.config.surrogate.beta, p.surrogate_slot
    difference = errors(p, phi) - errors(p, psi)
    terms = []
    for g in range(len(p.group_ids)):
        members = (p.group_N == g) & batch.valid_NK[p.rows_N, j]
        advantages = batch.advantages_NK[p.rows_N, j][members]
        s_g = beta / max(1, int(members.sum())) * (advantages * difference[members]).sum()
        terms.append(softplus(s_g) / beta)
    return torch.stack(terms).mean()


def with_errors(p, d):
    """A denoiser whose D_i are `d`: its velocity misses the target by sqrt(d) everywhere."""
    _, target, _ = drawn(p)
    miss = torch.tensor(d, dtype=torch.float64).sqrt().reshape(-1, 1, 1, 1)
    return RowDenoiser(target - miss)


def two_samples(**changes):
    """One group of two, A = (1, -1) in every column."""
    batch = fresh((2,))
    advantages = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 4)
    config = algorithm(num_groups=1, surrogate=PLAIN_SURROGATE | changes)
    return one_pass(batch, config, slot=2), rewarded(batch, advantages)


def evaluate(p, batch, phi=None, ema=None, psi=None, power=0.0, **keywords):
    phi, psi = phi or surrogate(), psi or teacher()
    return surrogate_loss(p, batch, phi, ema or surrogate_ema(), psi, power, **keywords)


def test_a_group_sum_by_hand():
    p, batch = two_samples(beta=10.0)
    preference = preference_of(p, batch, 2, like=torch.zeros((), dtype=torch.float64))
    difference = torch.tensor([0.2, 0.5], dtype=torch.float64)
    assert group_sums(preference, difference, 1, 10.0).tolist() == pytest.approx([-1.5])


def test_the_loss_by_hand():
    p, batch = two_samples(beta=2.0, regulariser=1e-3, step_weight=True)
    loss, metrics = evaluate(
        p, batch, with_errors(p, (1.0, 0.49)), psi=with_errors(p, (0.81, 0.64))
    )
    # S = 2/2 (1 (1 - .81) - 1 (.49 - .64)) = .34, sigmoid .584191, M = ((1-.9)^2 + (.7-.8)^2)/2
    preference = 0.584191 * (1.0 - 0.49) / 2
    assert float(metrics["surrogate/group_sum"]) == pytest.approx(0.34)
    assert float(metrics["surrogate/preference"]) == pytest.approx(0.877528 / 2, abs=1e-5)
    assert float(metrics["surrogate/distance"]) == pytest.approx(0.01)
    assert float(metrics["surrogate/error"]) == pytest.approx(0.745)
    assert float(metrics["surrogate/reference_error"]) == pytest.approx(0.725)
    assert loss.item() == pytest.approx(0.75 * (preference + 1e-3 * 0.01), abs=1e-6)


def test_rows_are_seen_with_what_the_surrogate_itself_makes_of_them():
    """Dref - D by hand, detached, whatever their advantages are."""
    p, batch = two_samples()
    seen = []
    evaluate(
        p,
        batch,
        with_errors(p, (1.0, 0.49)),
        psi=with_errors(p, (0.81, 0.64)),
        see_rewards=seen.append,
    )
    (rewards_N,) = seen
    assert rewards_N.tolist() == pytest.approx([0.81 - 1.0, 0.64 - 0.49])
    assert not rewards_N.requires_grad


def test_the_gradient_lowers_a_winners_error_and_raises_a_losers():
    p, batch = two_samples()
    phi, psi = with_errors(p, (1.0, 0.49)), with_errors(p, (0.81, 0.64))
    loss, metrics = evaluate(p, batch, phi, psi=psi)
    _, target, _ = drawn(p)
    weight = torch.sigmoid(metrics["surrogate/group_sum"]) / 2
    advantage = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    expected = weight * advantage * 2 * (phi.velocity - target) / 4
    assert torch.allclose(gradient(loss, phi), expected.flatten(), rtol=1e-12)


CASES = {
    "equal": ((4, 4), None),
    "unequal": ((5, 2), None),
    "masked": ((4, 4), [1, 1, 0, 1, 0, 1, 1, 0]),
    "one group gone": ((3, 3), [0, 0, 0, 1, 1, 1]),
}


@pytest.mark.parametrize("beta", [1.0, 10.0])
@pytest.mark.parametrize(("sizes", "mask"), CASES.values(), ids=CASES.keys())
def test_the_gradient_is_that_of_the_softplus_objective(sizes, mask, beta):
    batch = fresh(sizes)
    valid = None if mask is None else torch.tensor(mask, dtype=torch.bool)[:, None].expand(-1, 4)
    full = rewarded(batch, valid_NK=valid)
    p = one_pass(batch, algorithm(surrogate=PLAIN_SURROGATE | {"beta": beta}), slot=2)
    phi = surrogate()
    loss, metrics = evaluate(p, full, phi)
    found = gradient(loss, phi)
    assert torch.allclose(found, gradient(objective(p, full, phi, teacher()), phi), atol=1e-15)
    slopes = finite_difference(lambda: objective(p, full, phi, teacher()), phi)
    assert torch.allclose(found, slopes, rtol=1e-6, atol=1e-8)
    value = objective(p, full, phi, teacher())
    assert float(metrics["surrogate/preference"]) == pytest.approx(float(value.detach()))


def test_the_objective_is_the_bradley_terry_form_over_winners_and_losers():
    p, batch = one_pass(fresh(), PLAIN, slot=2), rewarded(fresh())
    phi, psi, beta = surrogate(), teacher(), PLAIN.surrogate.beta
    advantage = batch.advantages_NK[:, 2]
    implicit = -beta * (errors(p, phi) - errors(p, psi))

    def strength(members):
        return (advantage[members].abs() * implicit[members]).sum() / 4

    terms = []
    for g in (0, 1):
        mine = p.group_N == g
        margin = strength(mine & (advantage > 0)) - strength(mine & (advantage <= 0))
        terms.append(-torch.nn.functional.logsigmoid(margin) / beta)
    loss, _ = evaluate(p, batch, phi)
    assert torch.allclose(gradient(loss, phi), gradient(torch.stack(terms).mean(), phi), atol=1e-15)


def test_several_passes_add_up_to_the_mean_over_slots_and_groups():
    config = algorithm(
        num_groups=4, slots_per_update=2, groups_per_microbatch=2, surrogate=PLAIN_SURROGATE
    )
    batch = rewarded(fresh((4, 3, 5, 4)))
    phi = surrogate()
    walk = list(passes(batch.fresh, config, 0, 0))
    total = sum(evaluate(p, batch, phi)[0] for p in walk)
    mean = torch.stack([objective(p, batch, phi, teacher()) for p in walk]).mean()
    assert torch.allclose(gradient(total, phi), gradient(mean, phi), atol=1e-15)


def sharded(world_size, batch, config, dtype=torch.float64):
    """Loss, metrics and gradient summed over the ranks."""

    def body(rank, all_reduce):
        phi = AffineDenoiser(0.7, -0.2, 0.3, 0.6, dtype=dtype)
        p = one_pass(batch.fresh, config, 2, rank=rank, world_size=world_size)
        loss, metrics = evaluate(p, batch, phi, all_reduce=all_reduce)
        return loss.detach(), metrics, gradient(loss, phi)

    answers = run_ranks(world_size, body)
    metrics = {name: sum(answer[1][name] for answer in answers) for name in answers[0][1]}
    return sum(a[0] for a in answers), metrics, sum(a[2] for a in answers)


@pytest.mark.parametrize("world_size", [2, 4, 8, 10])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=["64", "32"]
)
def test_any_sharding_of_the_groups_gives_the_same_update(world_size, dtype, tolerance):
    config = algorithm(surrogate={"ratio_clip": 1e-2, "gate_threshold": 0.1})
    batch = rewarded(fresh((5, 4), dtype=dtype))
    alone, whole = sharded(1, batch, config, dtype), sharded(world_size, batch, config, dtype)
    assert torch.allclose(whole[0], alone[0], rtol=tolerance, atol=tolerance)
    assert torch.allclose(whole[2], alone[2], rtol=tolerance, atol=tolerance)
    for name, value in alone[1].items():
        assert torch.allclose(whole[1][name], value, rtol=tolerance, atol=tolerance), name


def test_a_pass_costs_one_all_reduce():
    calls = []

    def all_reduce(tensor):
        calls.append(tensor.shape)
        return tensor

    evaluate(one_pass(fresh(), algorithm()), rewarded(fresh()), all_reduce=all_reduce)
    assert calls == [(3,)]


def test_the_order_of_members_and_of_groups_changes_nothing():
    groups = [rollout_group(0), rollout_group(1)]
    batch = rewarded(fresh_batch(groups))
    config = algorithm()
    phi = surrogate()
    loss, _ = evaluate(one_pass(batch.fresh, config), batch, phi)
    order = torch.tensor([3, 0, 2, 1])
    moved = [
        replace(
            group,
            trajectory=replace(
                group.trajectory, boundaries_GKCHW=group.trajectory.boundaries_GKCHW[order]
            ),
        )
        for group in groups
    ]
    advantages = batch.advantages_NK
    turned = rewarded(
        fresh_batch(moved[::-1]), torch.cat([advantages[4:][order], advantages[:4][order]])
    )
    again, _ = evaluate(one_pass(turned.fresh, config), turned, phi)
    assert torch.allclose(again, loss, atol=1e-15)
    assert torch.allclose(gradient(again, phi), gradient(loss, phi), atol=1e-15)


def test_a_group_of_equal_rewards_gives_no_preference_gradient():
    batch = rewarded(fresh(), torch.zeros((8, 4), dtype=torch.float64))
    phi = surrogate()
    loss, metrics = evaluate(one_pass(batch.fresh, PLAIN), batch, phi)
    assert loss.item() == 0
    assert not gradient(loss, phi).any()
    assert float(metrics["surrogate/group_sum"]) == 0


def test_a_group_of_equal_rewards_still_feels_the_regulariser():
    batch = rewarded(fresh(), torch.zeros((8, 4), dtype=torch.float64))
    phi = surrogate()
    config = algorithm(surrogate=PLAIN_SURROGATE | {"regulariser": 0.5})
    loss, metrics = evaluate(one_pass(batch.fresh, config), batch, phi)
    assert loss.item() == pytest.approx(0.5 * float(metrics["surrogate/distance"]))
    assert gradient(loss, phi).any()


def test_without_any_valid_reward_only_the_regulariser_is_left():
    batch = rewarded(fresh(), valid_NK=torch.zeros((8, 4), dtype=torch.bool))
    config = algorithm(surrogate=PLAIN_SURROGATE | {"regulariser": 0.5})
    loss, metrics = evaluate(one_pass(batch.fresh, config), batch)
    assert loss.item() == pytest.approx(0.5 * float(metrics["surrogate/distance"]))
    assert loss.item() > 0


def test_an_invalid_sample_counts_neither_in_the_sum_nor_in_the_size():
    batch = fresh((4,))
    advantages = torch.tensor([1.0, -0.4, -0.6, 9.0], dtype=torch.float64)[:, None].expand(4, 4)
    valid = torch.tensor([True, True, True, False])[:, None].expand(4, 4)
    config = algorithm(num_groups=1, surrogate=PLAIN_SURROGATE)
    group = rollout_group(0)
    path = group.trajectory.boundaries_GKCHW[:3]
    three = fresh_batch(
        [replace(group, trajectory=replace(group.trajectory, boundaries_GKCHW=path))]
    )
    phi = surrogate()
    with_mask, _ = evaluate(one_pass(batch, config), rewarded(batch, advantages, valid), phi)
    without, _ = evaluate(one_pass(three, config), rewarded(three, advantages[:3]), phi)
    assert torch.allclose(gradient(with_mask, phi), gradient(without, phi), atol=1e-15)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_group_of_one_sign_is_still_defined(sign):
    batch = rewarded(fresh(), torch.full((8, 4), 5.0 * sign, dtype=torch.float64))
    phi = surrogate()
    loss, _ = evaluate(one_pass(batch.fresh, PLAIN), batch, phi)
    assert torch.isfinite(gradient(loss, phi)).all()


def test_turning_the_advantages_round_turns_the_gradient_at_zero_sum():
    p, batch = one_pass(fresh(), PLAIN), rewarded(fresh())
    turned = replace(batch, advantages_NK=-batch.advantages_NK)
    phi = AffineDenoiser(*teacher().coefficients.tolist())
    forward, metrics = evaluate(p, batch, phi)
    backward, _ = evaluate(p, turned, phi)
    assert float(metrics["surrogate/group_sum"]) == 0
    assert torch.allclose(gradient(forward, phi), -gradient(backward, phi), atol=1e-16)
    assert gradient(forward, phi).any()


def test_a_constant_added_to_all_errors_leaves_the_group_sums():
    p, batch = one_pass(fresh(), PLAIN), rewarded(fresh())
    d, reference = errors(p, surrogate()).detach(), errors(p, teacher())
    preference = preference_of(p, batch, 1, like=d)
    plain = group_sums(preference, d - reference, 2, 1.0)
    shifted = group_sums(preference, (d + 3.0) - (reference + 3.0), 2, 1.0)
    assert torch.allclose(plain, shifted, atol=1e-14)


def test_beta_sharpens_the_weight_and_never_scales_the_step():
    p, batch = two_samples(beta=1.0)
    sharp, _ = two_samples(beta=50.0)
    phi = with_errors(p, (0.81, 0.64))
    soft = gradient(evaluate(p, batch, phi, psi=with_errors(p, (0.81, 0.64)))[0], phi)
    hard = gradient(evaluate(sharp, batch, phi, psi=with_errors(p, (0.81, 0.64)))[0], phi)
    assert torch.allclose(soft, hard, rtol=1e-12)


@pytest.mark.parametrize("slot", range(4))
def test_slot_j_weighs_j_plus_one_over_k(slot):
    batch = rewarded(fresh())
    plain, weighted = (
        evaluate(one_pass(batch.fresh, algorithm(surrogate=WITHOUT_CLIPS | extra), slot), batch)[0]
        for extra in ({"step_weight": False}, {"step_weight": True})
    )
    assert weighted.item() == pytest.approx(plain.item() * (slot + 1) / 4, rel=1e-12)


def test_the_surrogate_learns_its_own_slots_column_at_the_stored_boundary():
    batch = rewarded(fresh())
    p = one_pass(batch.fresh, PLAIN, slot=0, surrogate_slot=2)
    recorder = Recorder(surrogate())
    evaluate(p, batch, recorder)
    x_tau, _, tau = drawn(p)
    ((latents, sigma),) = recorder.calls
    assert torch.equal(latents, x_tau)
    assert torch.equal(sigma, tau)
    changed = batch.advantages_NK.clone()
    changed[:, [0, 1, 3]] = 0
    same, _ = evaluate(p, rewarded(batch.fresh, changed))
    assert torch.equal(same, evaluate(p, batch)[0])


def test_training_tau_stays_above_its_minimum():
    p = one_pass(fresh(), algorithm(surrogate={"tau_min": 0.55}), slot=3)
    _, _, tau = drawn(p)
    assert float(tau[0]) > 0.5735
    assert len(tau.unique()) == 1


RULE_A = {"ratio_clip": 0.01, "gate_threshold": 0.0}
RULE_B = {"ratio_clip": 0.0, "gate_threshold": 0.05}


@pytest.mark.parametrize(
    ("rule", "advantage", "d", "ema", "reference", "distance", "frozen"),
    [
        (RULE_A, 1.0, 0.50, 0.52, 0.5, 9.0, True),
        (RULE_A, 1.0, 0.50, 0.505, 0.5, 9.0, False),
        (RULE_A, 1.0, 0.50, 0.40, 0.5, 9.0, False),
        (RULE_A, -1.0, 0.50, 0.48, 0.5, 9.0, True),
        (RULE_A, -1.0, 0.50, 0.495, 0.5, 9.0, False),
        (RULE_A, -1.0, 0.50, 0.60, 0.5, 9.0, False),
        (RULE_A, 1.0, 0.0, 500.0, 0.5, 0.0, True),
        (RULE_B, 1.0, 0.4, 0.4, 0.5, 0.06, True),
        (RULE_B, 1.0, 0.4, 0.4, 0.5, 0.05, False),
        (RULE_B, 1.0, 0.6, 0.6, 0.5, 0.06, False),
        (RULE_B, -1.0, 0.6, 0.6, 0.5, 0.06, True),
        (RULE_B, -1.0, 0.4, 0.4, 0.5, 0.06, False),
    ],
)
def test_the_freeze_rules_row_by_row(rule, advantage, d, ema, reference, distance, frozen):
    config = algorithm(surrogate=rule).surrogate
    values = [torch.tensor([v], dtype=torch.float64) for v in (advantage, d, ema, reference)]
    found = frozen_rows(*values, torch.tensor(distance, dtype=torch.float64), config)
    assert bool(found) is frozen


def test_nothing_is_frozen_where_surrogate_and_average_agree():
    config = algorithm(surrogate={"ratio_clip": 1e-9, "gate_threshold": 0.0})
    _, metrics = evaluate(one_pass(fresh(), config), rewarded(fresh()), ema=surrogate())
    assert float(metrics["surrogate/frozen"]) == 0


def test_a_frozen_row_has_no_gradient_of_its_own_but_counts_in_the_sum():
    p, batch = two_samples(ratio_clip=0.01, threshold_scale="absolute")
    free, _ = two_samples()
    phi, psi = with_errors(p, (1.0, 0.49)), with_errors(p, (0.81, 0.64))
    ema = with_errors(p, (1.1, 0.49))
    clipped, metrics = evaluate(p, batch, phi, ema=ema, psi=psi)
    unclipped, plain = evaluate(free, batch, phi, psi=psi)
    frozen_gradient = gradient(clipped, phi).reshape(2, -1)
    assert float(metrics["surrogate/frozen"]) == pytest.approx(0.5)
    assert torch.equal(metrics["surrogate/group_sum"], plain["surrogate/group_sum"])
    assert clipped.item() == pytest.approx(unclipped.item())
    assert not frozen_gradient[0].any()
    assert torch.equal(frozen_gradient[1], gradient(unclipped, phi).reshape(2, -1)[1])


def test_the_gate_opens_at_its_threshold_exactly():
    p, batch = two_samples(gate_threshold=0.01 + 1e-9, threshold_scale="absolute")
    tight, _ = two_samples(gate_threshold=0.01 - 1e-9, threshold_scale="absolute")
    nets = (with_errors(p, (0.64, 0.81)), None, with_errors(p, (0.81, 0.64)))
    assert float(evaluate(p, batch, *nets)[1]["surrogate/frozen"]) == 0
    assert float(evaluate(tight, batch, *nets)[1]["surrogate/frozen"]) == 1


def test_the_distance_is_a_mean_over_its_pass_however_many_an_update_has():
    """M = .01; a sum of row weights would be a quarter of it in an update of four passes."""
    advantages = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 4)
    gate = PLAIN_SURROGATE | {"gate_threshold": 0.008, "threshold_scale": "absolute"}
    config = algorithm(num_groups=1, slots_per_update=4, surrogate=gate)
    p, batch = one_pass(fresh((2,)), config, 2), rewarded(fresh((2,)), advantages)
    phi, psi = with_errors(p, (0.64, 0.81)), with_errors(p, (0.81, 0.64))
    _, metrics = evaluate(p, batch, phi, psi=psi)
    assert float(metrics["surrogate/frozen"]) == pytest.approx(0.25)
    assert float(metrics["surrogate/distance"]) == pytest.approx(0.01 / 4)


def test_the_gate_uses_the_distance_over_all_ranks():
    """Two ranks, one far from the teacher and one near: both must take the same decision."""
    batch = rewarded(fresh((8,)))
    config = algorithm(num_groups=1, surrogate=PLAIN_SURROGATE)
    whole = one_pass(batch.fresh, config, 2)
    x_tau, _, tau = drawn(whole)
    gap = surrogate()(x_tau, tau, whole.conditioning) - teacher()(x_tau, tau, whole.conditioning)
    local = gap.detach().square().flatten(1).mean(1)
    shares = sorted([float(local[0::2].mean()), float(local[1::2].mean())])
    assert shares[0] < 0.98 * shares[1]
    for threshold in ((shares[0] + local.mean()) / 2, (shares[1] + local.mean()) / 2):
        gate = PLAIN_SURROGATE | {
            "gate_threshold": float(threshold),
            "threshold_scale": "absolute",
        }
        gated = algorithm(num_groups=1, surrogate=gate)
        alone, split = sharded(1, batch, gated), sharded(2, batch, gated)
        assert torch.allclose(split[2], alone[2], atol=1e-15)
        assert torch.allclose(split[1]["surrogate/frozen"], alone[1]["surrogate/frozen"])


def test_relative_thresholds_do_not_see_the_scale_of_the_latents():
    def frozen(scale, kind):
        p, batch = two_samples(ratio_clip=0.05, gate_threshold=0.03, threshold_scale=kind)
        nets = [
            with_errors(p, [scale * value for value in values])
            for values in ((1.0, 0.64), (1.02, 0.64), (1.21, 0.49))
        ]
        _, metrics = surrogate_loss(p, batch, *nets, velocity_power=scale)
        return float(metrics["surrogate/frozen"])

    assert frozen(1.0, "relative") == frozen(100.0, "relative") == frozen(0.01, "relative") == 0
    assert frozen(1.0, "absolute") == 0
    assert frozen(100.0, "absolute") == 1


def test_before_anything_was_seen_the_unit_is_one():
    batch = rewarded(fresh())
    p = one_pass(batch.fresh, algorithm())
    assert torch.equal(evaluate(p, batch, power=0.0)[0], evaluate(p, batch, power=1.0)[0])


def test_the_running_velocity_power_starts_at_the_first_and_moves_slowly():
    first = update_velocity_power(0.0, 2.0)
    assert first == 2.0
    assert update_velocity_power(first, 4.0) == pytest.approx(0.95 * 2 + 0.05 * 4)


def test_the_reference_may_be_the_surrogates_average():
    p, batch = two_samples()
    other, _ = two_samples(reference="ema")
    nets = [with_errors(p, d) for d in ((1.0, 0.49), (0.9, 0.6), (0.81, 0.64))]
    _, frozen = surrogate_loss(p, batch, *nets, velocity_power=0.0)
    _, moving = surrogate_loss(other, batch, *nets, velocity_power=0.0)
    assert float(frozen["surrogate/group_sum"]) == pytest.approx(0.5 * (0.19 + 0.15))
    assert float(moving["surrogate/group_sum"]) == pytest.approx(0.5 * (0.1 + 0.11))


def test_only_the_surrogate_receives_a_gradient():
    phi, others = surrogate(), [AffineDenoiser(0.1, 0.2, 0.3, 0.4) for _ in range(2)]
    loss, metrics = evaluate(one_pass(fresh(), algorithm()), rewarded(fresh()), phi, *others)
    loss.backward()
    assert phi.coefficients.grad is not None
    assert has_no_gradient(*others)
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize(
    ("changes", "asked"),
    [({}, 1), ({"reference": "ema", "ratio_clip": 0.0}, 1), ({"ratio_clip": 0.0}, 0)],
)
def test_each_network_is_asked_once_and_the_average_only_where_it_matters(changes, asked):
    phi, ema, psi = Recorder(surrogate()), Recorder(surrogate_ema()), Recorder(teacher())
    evaluate(one_pass(fresh(), algorithm(surrogate=changes)), rewarded(fresh()), phi, ema, psi)
    assert [len(net.calls) for net in (phi, ema, psi)] == [1, asked, 1]


def test_a_rank_without_rows_takes_part_with_nothing():
    config = algorithm(num_groups=1)
    batch = rewarded(fresh((2,)))
    phi = surrogate()
    p = one_pass(batch.fresh, config, rank=5, world_size=6)
    loss, _ = evaluate(p, batch, phi)
    assert not gradient(loss, phi).any()


def test_errors_are_kept_in_single_precision_when_the_network_is_not():
    batch = rewarded(fresh(dtype=torch.float32))
    phi = AffineDenoiser(0.7, -0.2, 0.3, 0.6, dtype=torch.float32)

    def half(latents, sigma, conditioning):
        return phi(latents, sigma, conditioning).bfloat16()

    _, metrics = evaluate(one_pass(batch.fresh, algorithm()), batch, half)
    assert metrics["surrogate/error"].dtype == torch.float32


def test_group_weights_make_a_weighted_mean_over_groups():
    """Weights 1 and 1/2: the groups' own losses count 2/3 and 1/3."""
    batch = fresh((3, 3))
    config = algorithm(num_groups=2, surrogate=PLAIN_SURROGATE)
    phi = surrogate()
    each = []
    for weights in ((1.0, 1e-12), (1e-12, 1.0)):
        p = one_pass(batch, config, slot=1)
        loss, _ = evaluate(p, rewarded(batch, weights=weights), phi)
        each.append(gradient(loss, phi))
    p = one_pass(batch, config, slot=1)
    loss, _ = evaluate(p, rewarded(batch, weights=(0.9, 0.45)), phi)
    assert torch.allclose(gradient(loss, phi), (2 * each[0] + each[1]) / 3)


def test_equal_group_weights_change_no_bit():
    batch = fresh((3, 5))
    config = algorithm(num_groups=2, surrogate=PLAIN_SURROGATE)
    p = one_pass(batch, config, slot=1)
    plain = preference_of(p, rewarded(batch), 1, like=p.boundaries_NKCHW)
    weights = p.weight_N.to(p.boundaries_NKCHW)
    assert torch.equal(plain.weight, weights)
    halves = preference_of(p, rewarded(batch, weights=(0.5, 0.5)), 1, like=p.boundaries_NKCHW)
    assert torch.equal(halves.weight, weights)


def test_weighted_groups_by_hand():
    """Groups of 2 and 4 rows, weights 1 and 1/4: shares 4/5 and 1/5, spread over their rows."""
    batch = fresh((2, 4))
    p = one_pass(batch, algorithm(num_groups=2, surrogate=PLAIN_SURROGATE), slot=1)
    found = preference_of(p, rewarded(batch, weights=(1.0, 0.25)), 1, like=p.boundaries_NKCHW)
    shares = [0.4, 0.4, 0.05, 0.05, 0.05, 0.05]
    assert (found.weight / found.weight.sum()).tolist() == pytest.approx(shares)
    assert found.weight.sum().item() == pytest.approx(p.weight_N.sum().item())
