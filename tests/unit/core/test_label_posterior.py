"""Votes to rewards: closed forms, what is missing, and the simulation of the design's table."""

import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdm_core.label_posterior import (
    MAX_K,
    MIN_K,
    RollingStd,
    Tally,
    advantages,
    base_rate,
    fit_platt,
    gold_gate,
    group_posterior,
    group_prior,
    influence,
    k_from_rates,
    k_from_votes,
    labelling_priority,
    logit,
    no_contrast_probability,
    prior_without,
    refit_k,
    sigmoid,
    tally,
)

pytestmark = pytest.mark.unit

LIKE, DISLIKE, NONE = Tally(1, 1, 1), Tally(0, 1, 1), Tally()
tallies_of_a_group = st.lists(
    st.sampled_from([LIKE, DISLIKE, NONE, Tally(0.25, 0.5, 1)]), min_size=1
)
rewards_of_a_group = st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=16)


def test_the_label_service_gets_no_torch_with_it():
    code = "import sys, tdm_core.label_agreement; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Votes


def test_votes_add_up_by_their_weights():
    votes = [("like", 1.0), ("dislike", 1.0), ("unsure", 1.0), ("skip", 1.0)]
    assert tally(votes) == Tally(likes=1.25, weight=2.5, num_labels=3)


def test_a_shut_gate_removes_a_vote():
    assert tally([("like", 0.0), ("dislike", 1.0)]) == Tally(0.0, 1.0, 1)


@pytest.mark.parametrize("vote", [("love", 1.0), ("like", math.nan), ("like", -1.0)])
def test_a_strange_vote_is_an_error(vote):
    with pytest.raises(ValueError, match="allowed"):
        tally([vote])


def test_the_base_rate_is_the_like_rate_once_there_are_labels():
    assert base_rate([]) == 0.5
    assert base_rate([("like", 1.0)] * 1400 + [("dislike", 1.0)] * 600) == pytest.approx(0.7, 1e-3)
    assert 0 < base_rate([("dislike", 1.0)]) < base_rate([("like", 1.0)]) < 1


def test_the_gold_gate_waits_for_enough_answers():
    assert gold_gate(0, 9) == 1.0
    assert gold_gate(7, 10) == 0.0
    assert gold_gate(8, 10) == 1.0
    assert [gold_gate(correct, 15) for correct in (11, 12)] == [0.0, 1.0]  # 12 / 15 is the bar
    with pytest.raises(ValueError, match="impossible"):
        gold_gate(3, 2)


# Prior and posterior


def test_a_group_by_hand():
    found = group_posterior([LIKE, DISLIKE, NONE, Tally(2, 3, 3)], m0=0.5)
    m = (2 * 0.5 + 3) / (2 + 5)
    assert found.prior == [pytest.approx(m)] * 4
    expected = [(2 * m + 1) / 3, 2 * m / 3, m, (2 * m + 2) / 5]
    assert found.mu == pytest.approx(expected)
    assert (found.likes, found.n) == ([1, 0, 0, 2], [1, 1, 0, 3])
    assert found.rho == pytest.approx([1 / 3, 1 / 3, 0, 3 / 5])
    assert found.var == pytest.approx(
        [mu * (1 - mu) / (k + 1) for mu, k in zip(expected, [3, 3, 2, 5], strict=True)]
    )
    assert (found.coverage, found.contrast, found.num_labels) == (0.75, True, 5)
    assert found.as_json()["mu"] == found.mu


def test_a_group_without_labels_stands_at_the_base_rate_without_contrast():
    found = group_posterior([NONE] * 4, m0=0.3)
    assert found.mu == pytest.approx([0.3] * 4)
    assert found.var == pytest.approx([0.3 * 0.7 / 3] * 4)
    assert (found.coverage, found.contrast, found.num_labels) == (0.0, False, 0)


def test_one_label_moves_its_image_most_and_the_rest_by_the_prior_alone():
    found = group_posterior([LIKE, NONE, NONE], m0=0.5)
    assert found.mu == pytest.approx([(2 * 2 / 3 + 1) / 3, 2 / 3, 2 / 3])


def test_a_group_that_everyone_likes_has_no_contrast():
    found = group_posterior([LIKE] * 8, m0=0.5)
    assert not found.contrast
    assert advantages(found.mu, 0.1) == [0.0] * 8


def test_an_automatic_reward_may_give_the_priors():
    found = group_posterior([LIKE, NONE], m0=0.5, k=4, priors=[0.25, 0.75])
    assert found.mu == pytest.approx([2 / 5, 0.75])


@pytest.mark.parametrize(
    "change",
    [{"m0": math.nan}, {"m0": 1.5}, {"k": 0.0}, {"k_g": math.inf}, {"priors": [0.5, math.nan]}],
)
def test_what_is_no_number_never_becomes_a_reward(change):
    with pytest.raises(ValueError, match=r"rate|positive"):
        group_posterior([LIKE, NONE], **({"m0": 0.5} | change))


def test_a_group_needs_an_image_and_a_prior_each():
    with pytest.raises(ValueError, match="at least one"):
        group_posterior([], 0.5)
    with pytest.raises(ValueError, match="1 priors for 2 images"):
        group_posterior([LIKE, NONE], 0.5, priors=[0.5])


@given(tallies_of_a_group, st.floats(0, 1), st.randoms(use_true_random=False))
def test_the_order_of_images_changes_nothing_but_the_order(tallies, m0, rng):
    order = list(range(len(tallies)))
    rng.shuffle(order)
    straight = group_posterior(tallies, m0)
    shuffled = group_posterior([tallies[i] for i in order], m0)
    assert shuffled.mu == pytest.approx([straight.mu[i] for i in order])


@given(tallies_of_a_group, st.floats(0, 1))
def test_a_posterior_stays_between_the_prior_and_the_votes(tallies, m0):
    found = group_posterior(tallies, m0)
    for mu, prior, image in zip(found.mu, found.prior, tallies, strict=True):
        ends = [prior, image.likes / image.weight if image.weight else prior]
        assert min(ends) - 1e-12 <= mu <= max(ends) + 1e-12


def test_no_contrast_is_likely_where_people_like_everything():
    assert no_contrast_probability([0.8] * 4) == pytest.approx(0.8**4 + 0.2**4)
    assert labelling_priority([0.5] * 8, 0) > labelling_priority([0.95] * 8, 0)
    assert labelling_priority([0.5] * 8, 4) == pytest.approx(labelling_priority([0.5] * 8, 0) / 2)


# An automatic reward as the prior


def test_platt_finds_the_logistic_that_made_the_votes():
    rng = random.Random(0)
    scores = [rng.gauss(5, 3) for _ in range(4000)]
    votes = [float(rng.random() < sigmoid(-2 + 0.5 * x)) for x in scores]
    found = fit_platt(scores, [Tally(v, 1, 1) for v in votes])
    assert (found.a, found.b) == (pytest.approx(-2, abs=0.2), pytest.approx(0.5, abs=0.05))
    residual = sum(found(x) - v for x, v in zip(scores, votes, strict=True))
    assert abs(residual) / len(scores) < 2e-3  # a fitted intercept balances the votes


def test_platt_stays_finite_where_scores_separate_the_votes():
    found = fit_platt([0.0, 1.0, 10.0, 11.0], [DISLIKE, DISLIKE, LIKE, LIKE])
    assert math.isfinite(found.a)
    assert 0 < found.b < 10
    assert 0 < found(0.0) < 0.5 < found(11.0) < 1


def test_platt_without_votes_or_spread_is_the_base_rate():
    assert fit_platt([1.0, 2.0], [NONE, NONE])(1.5) == pytest.approx(0.5)
    flat = fit_platt([3.0] * 4, [LIKE, LIKE, LIKE, DISLIKE])
    assert (flat.b, flat(99.0)) == (0.0, pytest.approx(4 / 6))
    assert fit_platt([math.nan, 1.0, 2.0], [LIKE, LIKE, DISLIKE]).b < 0


# How much a prior is worth


def drawn_votes(k: float, votes: int, images: int = 6000) -> tuple[list[float], list[Tally]]:
    """Images whose like rate is Beta(k m, k (1-m)), m spread evenly, with so many votes each."""
    rng = random.Random(1)
    priors = [rng.uniform(0.2, 0.8) for _ in range(images)]
    rates = [rng.betavariate(k * m, k * (1 - m)) for m in priors]
    likes = [sum(rng.random() < p for _ in range(votes)) for p in rates]
    return priors, [Tally(float(count), float(votes), votes) for count in likes]


@pytest.mark.parametrize("k", [0.5, 2.0, 10.0])
def test_k_is_found_again_by_moments_and_by_likelihood(k):
    priors, tallies = drawn_votes(k, votes=3)
    assert k_from_votes(priors, tallies) == pytest.approx(k, rel=0.2)
    assert refit_k(priors, tallies) == pytest.approx(k, rel=0.2)


def test_the_moment_form_by_hand():
    assert k_from_rates([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.25 / 0.0625 - 1)
    assert k_from_rates([0.5], [0.5]) == MAX_K
    # Two votes an image at m = 1/2: r = (4 E[(ybar-m)^2] n - 1) / (n-1), here (2 * 2/3 - 1) = 1/3.
    images = [Tally(2, 2, 2), Tally(0, 2, 2), Tally(1, 2, 2)]
    assert k_from_votes([0.5] * 3, images) == pytest.approx(2.0)


def test_one_vote_an_image_says_nothing_of_k():
    priors, tallies = drawn_votes(2.0, votes=1, images=50)
    assert k_from_votes(priors, tallies) is None
    assert refit_k(priors, tallies, fallback=3.0) == 3.0


def test_k_stays_in_bounds_where_votes_agree_or_contradict_completely():
    agree = [Tally(5, 5, 5), Tally(0, 5, 5)] * 50
    assert refit_k([0.5] * 100, agree) == pytest.approx(MIN_K, rel=0.1)
    spread = [Tally(3, 6, 6)] * 100
    assert refit_k([0.5] * 100, spread) == pytest.approx(MAX_K, rel=0.1)


def test_the_prior_of_an_image_can_leave_its_own_votes_out():
    assert prior_without([LIKE, DISLIKE, NONE], 0, 0.5) == group_prior([DISLIKE, NONE], 0.5)


# Advantages


@given(rewards_of_a_group, st.floats(0.1, 10))
def test_advantages_sum_to_zero_whatever_is_missing(rewards, std):
    found = advantages(rewards, std)
    assert [a is None for a in found] == [r is None for r in rewards]
    assert sum(a for a in found if a is not None) == pytest.approx(0, abs=1e-9)


@given(rewards_of_a_group)
def test_adding_a_constant_changes_no_advantage(rewards):
    moved = [None if r is None else r + 3 for r in rewards]
    pairs = zip(advantages(rewards, 0.1), advantages(moved, 0.1), strict=True)
    assert all(a == pytest.approx(b, abs=1e-6) for a, b in pairs if a is not None)


def test_advantages_by_hand():
    assert advantages([0.2, None, 0.6], 0.1) == [pytest.approx(-2.0), None, pytest.approx(2.0)]
    assert advantages([0.4], 0.1) == [0.0]
    assert advantages([None, None], 0.1) == [None, None]


def test_a_clipped_group_is_centred_again():
    found = advantages([0.0] * 9 + [1.0], 0.1)  # before the clip: nine times -1, and 9
    assert found == [pytest.approx(-0.6)] * 9 + [pytest.approx(5.4)]


def test_what_is_no_number_is_no_advantage():
    with pytest.raises(ValueError, match="finite"):
        advantages([0.5, math.nan], 0.1)


def test_the_rolling_std_is_of_centred_rewards_floored_and_forgets():
    rolling = RollingStd(num_groups=2)
    assert rolling.std() == 0.1
    rolling.add([0.0, 1.0])
    assert rolling.std() == pytest.approx(0.5)
    rolling.add([None, 0.3])  # one reward has no spread
    assert rolling.std() == pytest.approx(0.5)
    rolling.add([7.0, 7.0, 7.0])
    assert rolling.std() == pytest.approx(math.sqrt(0.5 / 5))
    rolling.add([7.0, 7.0])
    assert rolling.std() == 0.1


# The design's table (labels and dashboard 2.6): groups of 8, logit-normal taste


def simulated(coverage: float, votes: int, num_groups: int = 4000) -> dict[str, float]:
    """Pooled cosine of each way's advantages with the true centred like rate."""
    rng, size = random.Random(7), 8
    rolling = RollingStd()
    sums = {way: [0.0, 0.0] for way in ("zero", "group", "ours")}
    truth, dead = 0.0, 0
    for _ in range(num_groups):
        centre = rng.gauss(0, 1)
        rates = [sigmoid(rng.gauss(centre, 1.2)) for _ in range(size)]
        likes = [
            sum(rng.random() < p for _ in range(votes)) if rng.random() < coverage else None
            for p in rates
        ]
        raw = [None if count is None else count / votes for count in likes]
        posterior = group_posterior(
            [NONE if c is None else Tally(float(c), float(votes), votes) for c in likes], 0.5
        )
        rolling.add(posterior.mu)
        dead += not posterior.contrast
        own = RollingStd(1, floor=1e-6)
        own.add(raw)
        ways = {
            "zero": advantages([value or 0.0 for value in raw], 1.0),
            "group": [a or 0.0 for a in advantages(raw, own.std(), clip=math.inf)],
            "ours": advantages(posterior.mu, rolling.std()),
        }
        mean = sum(rates) / size
        true = [p - mean for p in rates]
        truth += sum(t * t for t in true)
        for way, values in ways.items():
            sums[way][0] += sum(a * t for a, t in zip(values, true, strict=True))
            sums[way][1] += sum(a * a for a in values)
    cosines = {way: dot / math.sqrt(square * truth) for way, (dot, square) in sums.items()}
    return cosines | {"dead": dead / num_groups}


@pytest.mark.parametrize(
    ("coverage", "votes", "zero", "group", "ours"),
    [(0.5, 1, 0.244, 0.299, 0.314), (0.5, 3, 0.292, 0.410, 0.448), (0.25, 1, 0.157, 0.183, 0.217)],
)
def test_our_advantages_follow_taste_better_than_the_usual_ways(coverage, votes, zero, group, ours):
    found = simulated(coverage, votes)
    assert found["zero"] < found["group"] < found["ours"]
    assert found["zero"] == pytest.approx(zero, abs=0.02)
    assert found["group"] == pytest.approx(group, abs=0.02)
    assert found["ours"] == pytest.approx(ours, abs=0.02)
    # Only a group without any label has no contrast.
    assert found["dead"] == pytest.approx((1 - coverage) ** 8, abs=0.02)


def test_the_gate_saves_the_posterior_from_spam():
    rng = random.Random(3)
    rates = [sigmoid(rng.gauss(0, 1.5)) for _ in range(2000)]
    people = [("spam", 0.0) if index % 4 == 0 else ("good", 1.0) for index in range(20)]
    open_votes, gated_votes = [], []
    for rate in rates:
        votes = []
        for kind, gate in rng.sample(people, 3):
            liked = rng.random() < (0.5 if kind == "spam" else rate)
            votes.append(("like" if liked else "dislike", gate))
        gated_votes.append(tally(votes))
        open_votes.append(tally([(value, 1.0) for value, _ in votes]))

    def error(tallies: list[Tally]) -> float:
        mu = [group_posterior([image], 0.5).mu[0] for image in tallies]
        return sum((m - p) ** 2 for m, p in zip(mu, rates, strict=True)) / len(rates)

    assert error(gated_votes) < 0.95 * error(open_votes)


def test_sigmoid_and_logit_are_inverse_and_never_overflow():
    assert sigmoid(-1000) == 0.0
    assert sigmoid(1000) == 1.0
    assert sigmoid(logit(0.3)) == pytest.approx(0.3)


def test_influence_cuts_the_heaviest_to_the_cap_by_hand():
    # One above: L = .3 * 20 / .7; two above: L = .3 * 15 / .4.
    one = influence({"a": 90, "b": 5, "c": 5, "d": 5, "e": 5}, 0.3)
    assert one == {"a": pytest.approx(0.3 * 20 / 0.7 / 90)}
    two = influence({"a": 50, "b": 40, "c": 5, "d": 5, "e": 5}, 0.3)
    assert two == {"a": pytest.approx(11.25 / 50), "b": pytest.approx(11.25 / 40)}


@given(
    weights=st.lists(st.floats(0.01, 1000), min_size=5, max_size=20),
    cap=st.floats(0.01, 1),
)
def test_after_influence_nobody_has_more_than_the_cap_or_an_even_share(weights, cap):
    people = {str(n): weight for n, weight in enumerate(weights)}
    factors = influence(people, cap)
    left = {who: weight * factors.get(who, 1.0) for who, weight in people.items()}
    share = max(cap, 1 / len(people))
    assert max(left.values()) <= share * sum(left.values()) * (1 + 1e-6) + 1e-6
    assert all(0 < factor < 1 for factor in factors.values())


def test_influence_leaves_few_people_and_even_votes_alone():
    assert influence({"a": 1000, "b": 1, "c": 1, "d": 1, "silent": 0}, 0.3) == {}
    assert influence(dict.fromkeys("abcdef", 2.0), 0.3) == {}
    with pytest.raises(ValueError, match="influence cap 0"):
        influence({}, 0)
