"""Who agrees with whom, and whom an admin should look at."""

import random

from sqlalchemy import update

from services.labels.diagnosis import FEWEST, Diagnosis, Habits, diagnose
from services.labels.store.tables import Label
from tests.labels.labelling_cases import World


def crowd(here: World) -> None:
    """Three who agree, one who tosses a coin, one who likes everything."""
    rng = random.Random(0)
    for n in range(10):
        images = here.group(f"g{n}", 4, overlap=5)
        truth = "".join(rng.choice("ld") for _ in images)
        for person in ("ann", "bob", "cem"):
            here.label(person, images, truth)
        here.label("coin", images, "".join(rng.choice("ld") for _ in images))
        here.label("fan", images, "llll")


def of(found: Diagnosis, who: str) -> Habits:
    return next(person for person in found.people if person.annotator_id == who)


def test_who_answers_at_random_or_always_the_same_is_flagged_and_others_are_not(
    here: World,
) -> None:
    crowd(here)
    found = diagnose(here.session)
    assert (found.num_votes, found.num_shared_images) == (200, 40)
    assert found.alpha is not None
    assert 0.2 < found.alpha < 0.6
    assert found.alpha_interval is not None
    assert found.alpha_interval[0] < found.alpha < found.alpha_interval[1]
    assert [person.annotator_id for person in found.people[:2]] == ["coin", "fan"]
    assert of(found, "coin").flags == ("at-random",)
    assert set(of(found, "fan").flags) == {"always-the-same", "at-random", "likes-unlike-others"}
    for who in ("ann", "bob", "cem"):
        assert of(found, who).flags == ()
        assert (of(found, who).informativeness or 0) > 0.8


def test_too_fast_and_far_more_than_others_are_flagged(here: World) -> None:
    for who in ("ann", "bob", "cem", "dan"):
        here.label(who, here.group(who, 20), "ld" * 10)
    for n in range(6):
        here.label("eve", here.group(f"eve{n}", 20), "ld" * 10)
    eves = update(Label).where(Label.annotator_id == "eve")
    here.session.execute(eves.values(latency_ms=150))
    found = diagnose(here.session)
    assert of(found, "eve").flags == ("too-fast", "far-more", "faster-than-others")
    assert of(found, "eve").median_latency_ms == 150
    assert of(found, "ann").flags == ()
    assert of(found, "ann").informativeness is None  # nobody judged the same images
    assert found.alpha is found.alpha_interval is None


def test_who_comes_back_where_most_look_in_once_is_not_flagged_for_it(here: World) -> None:
    for n in range(6):
        here.label(f"visitor{n}", here.group(f"v{n}", 4), "ldld")
    for who in ("ann", "bob", "cem", "dan", "eve"):
        here.label(who, here.group(who, 40), "ld" * 20)
    assert [person.flags for person in diagnose(here.session).people] == [()] * 11


def test_little_says_nothing_of_a_person(here: World) -> None:
    here.label("ann", here.group("g", FEWEST - 1), "l" * (FEWEST - 1))
    here.label("bob", here.group("h", FEWEST), "d" * FEWEST)
    found = diagnose(here.session)
    assert of(found, "ann").flags == ()
    assert of(found, "bob").flags == ("always-the-same",)


def test_a_run_is_looked_at_alone_and_nothing_is_no_error(here: World) -> None:
    crowd(here)
    assert diagnose(here.session, run_id="run").num_votes == 200
    assert diagnose(here.session, run_id="another") == Diagnosis(0, 0, None, None, [])
    assert diagnose(here.session, question_id="another").people == []
