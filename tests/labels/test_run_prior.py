"""What a run's labels say before a group has any."""

import random

import pytest

from services.labels import prior_fit
from services.labels.store.tables import Annotator, Run
from tests.labels.labelling_cases import World


def run_of(here: World) -> Run:
    return here.session.get_one(Run, "run", populate_existing=True)


def fill(here: World, num_groups: int, size: int = 8) -> None:
    """Groups whose images please by their score alone, labelled by two people each."""
    rng = random.Random(0)
    for n in range(num_groups):
        scores = [rng.gauss(0, 1) for _ in range(size)]
        images = here.group(f"g{n}", size, overlap=2, auto_rewards={"aesthetic": scores})
        for person in ("ann", "bob"):
            values = ["l" if rng.gauss(score, 0.5) > 0 else "d" for score in scores]
            here.label(person, images, "".join(values))


def test_the_base_rate_follows_the_runs_last_labels(here: World) -> None:
    for n in range(10):
        here.label("ann", here.group(f"g{n}", 8), "lllllldd")
    assert run_of(here).like_rate == pytest.approx(0.75, abs=0.02)
    here.set(base_rate_window=40)
    for n in range(10, 20):
        here.label("ann", here.group(f"g{n}", 8), "dddddddl")
    assert run_of(here).like_rate == pytest.approx(0.125, abs=0.05)


def test_gold_retracted_and_gated_votes_are_no_base_rate(here: World) -> None:
    here.label("ann", here.group("g", 8), "lllldddd")
    here.person("spam")
    here.session.get_one(Annotator, "spam").weight = 0
    here.label("spam", here.group("h", 8), "llllllll")
    assert run_of(here).like_rate == pytest.approx(0.5)


def test_the_base_rate_is_not_counted_at_every_label(here: World) -> None:
    for n in range(25):
        here.label("ann", here.group(f"g{n}", 8), "lllldddd")
    images = here.group("g", 8)
    counted = []
    for image in images:
        here.label("ann", [image], "l")
        counted.append(run_of(here).rate_seq)
    assert 2 <= len(set(counted)) <= 3  # a fiftieth of 200 labels is 4


def test_k_and_the_proxy_are_fitted_once_there_are_labels_enough(here: World) -> None:
    here.set(proxy_reward="aesthetic")
    fill(here, 20)
    assert prior_fit.runs_to_refit(here.session) == []
    fill_more = [f"x{n}" for n in range(13)]
    for name in fill_more:
        here.label("ann", here.group(name, 16), "ld" * 8)
    assert prior_fit.runs_to_refit(here.session) == ["run"]
    prior_fit.keep(here.session, "run", prior_fit.fit(here.session, "run", here.settings))
    assert prior_fit.runs_to_refit(here.session) == []
    prior = run_of(here).prior
    assert prior is not None
    assert prior["b"] > 0.5
    assert 0.05 <= prior["k"] <= 200


def test_a_proxy_reward_moves_the_prior_of_unlabelled_images(here: World) -> None:
    here.set(proxy_reward="aesthetic")
    fill(here, 20)
    prior_fit.keep(here.session, "run", prior_fit.fit(here.session, "run", here.settings))
    images = here.group("new", 3, auto_rewards={"aesthetic": [-2.0, 0.0, 2.0]})
    here.label("ann", images[1:2], "s")
    aggregate = here.state("new").aggregate
    assert aggregate is not None
    assert aggregate["n"] == [0, 0, 0]
    assert aggregate["mu"][0] < 0.3 < 0.7 < aggregate["mu"][2]
    missing = here.group("gap", 2, auto_rewards={"aesthetic": [None, 2.0]})
    here.label("ann", missing[:1], "l")
    aggregate = here.state("gap").aggregate
    assert aggregate is not None
    assert aggregate["prior"][0] == aggregate["prior"][1]


def test_one_person_counts_for_no_more_than_the_influence_cap(here: World) -> None:
    here.set(influence_cap=0.3)
    busy = [here.group(f"busy{n}", 8) for n in range(10)]
    for images in busy:
        here.label("spam", images, "llllllll")
    assert run_of(here).influence is None  # alone, they are not too much of anything
    for person in ("ann", "bob", "cem", "dan"):
        here.label(person, here.group(person, 8), "dddddddd")
    # 80 likes against 32 dislikes: the cap leaves .3 * 32 / .7 of the 80.
    factor = 0.3 * 32 / 0.7 / 80
    assert run_of(here).influence == {"spam": pytest.approx(factor)}
    likes = 80 * factor
    assert run_of(here).like_rate == pytest.approx((likes + 1) / (likes + 32 + 2))
    both = here.group("both", 2, overlap=2)
    here.label("spam", both, "ld")
    aggregate = here.state("both").aggregate
    assert aggregate is not None
    assert aggregate["n"] == pytest.approx([factor, factor], rel=0.1)
    here.set(influence_cap=None)
    here.label("ann", both, "ld")
    aggregate = here.state("both").aggregate
    assert aggregate is not None
    assert aggregate["n"] == [2, 2]
