"""Simulated people: the same seed is the same people, and they label over real HTTP."""

import math
import threading
from collections import Counter

import pytest

from services.label_client.client import LabelClient
from services.labels.crowd import CrowdConfig, make_crowd, run_crowd
from services.labels.settings import NO_RATES, Settings
from tests.labels.live import ask, png, put_group
from tests.labels.people import make_annotator, make_key

unit = pytest.mark.unit
integration = pytest.mark.integration
PICTURES = [png(seed) for seed in range(60)]


def bright(pixels):
    """Who likes brightness."""
    return float(pixels.mean() > 127)


def half(pixels):
    return 0.5


@unit
def test_the_same_seed_says_the_same_in_any_order():
    config = CrowdConfig(num_people=3, seed=5, leniency_sd=1, spammers=0.34, unsure=0.1)
    first, again = make_crowd(config, half), make_crowd(config, half)
    said = [person.judge(picture) for person in first for picture in PICTURES]
    back = [person.judge(picture) for person in reversed(again) for picture in reversed(PICTURES)]
    assert said == back[::-1]
    other = make_crowd(CrowdConfig(num_people=3, seed=6), half)
    assert said != [person.judge(picture) for person in other for picture in PICTURES]


@unit
def test_honest_people_follow_the_taste_and_spammers_do_not():
    honest, spammer = sorted(
        make_crowd(CrowdConfig(num_people=2, spammers=0.5), bright), key=lambda p: p.is_spammer
    )
    truth = ["like" if seed_is_bright(picture) else "dislike" for picture in PICTURES]
    assert [honest.judge(picture) for picture in PICTURES] == truth
    hits = sum(spammer.judge(p) == t for p, t in zip(PICTURES, truth, strict=True))
    assert 15 <= hits <= 45


def seed_is_bright(picture):
    from services.labels.crowd import decode

    return bright(decode(picture)) > 0.5


@unit
def test_lenient_people_like_more():
    crowd = make_crowd(CrowdConfig(num_people=20, leniency_sd=3), half)
    likes = {p.leniency: sum(p.judge(x) == "like" for x in PICTURES) for p in crowd}
    kindest, strictest = max(likes), min(likes)
    assert likes[kindest] > likes[strictest] + 20
    spread = math.sqrt(sum(value**2 for value in likes) / len(likes))
    assert 1.5 < spread < 5


@unit
def test_shares_are_exact():
    crowd = make_crowd(CrowdConfig(num_people=8, spammers=0.25, quitters=0.5), half)
    assert sum(person.is_spammer for person in crowd) == 2
    assert sum(person.quits_in_group is not None for person in crowd) == 4


@unit
def test_the_time_a_person_takes_has_the_median_that_was_asked_for():
    (person,) = make_crowd(CrowdConfig(num_people=1, median_s=2.0), half)
    times = sorted(person.seconds(n) for n in range(201))
    assert 1.7 < times[100] < 2.3
    assert make_crowd(CrowdConfig(num_people=1), half)[0].seconds(0) == 0


@unit
def test_a_crowd_of_nobody_is_refused():
    with pytest.raises(ValueError, match="num_people=0"):
        make_crowd(CrowdConfig(num_people=0), half)


@pytest.fixture
def database_url(one_database_url):
    return one_database_url


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        gold_rate=0,
        overlap_rate=0,
        rates=NO_RATES,
    )


@pytest.fixture
def service(live_server, keys):
    with LabelClient(live_server, keys["admin"]) as admin:
        ask(admin)
    with LabelClient(live_server, keys["service"]) as client:
        yield client


@pytest.fixture
def hire(live_server, database, clock):
    clients = []

    def hired(config, taste):
        people = []
        for person in make_crowd(config, taste):
            annotator = make_annotator(database, person.name, clock())
            key = make_key(database, "annotator", clock(), annotator_id=annotator)
            clients.append(LabelClient(live_server, key))
            people.append((person, clients[-1]))
        return people

    yield hired
    for client in clients:
        client.close()


@integration
def test_a_crowd_labels_every_group_once_and_the_rewards_follow_its_taste(service, hire):
    for n in range(6):
        put_group(service, f"g{n}", num_images=4)
    report = run_crowd(hire(CrowdConfig(num_people=3), bright), idle_s=1)
    assert (report.num_groups, report.values.total()) == (6, 24)
    messages = service.receive(max_groups=64)
    assert {message.group_id for message in messages} == {f"g{n}" for n in range(6)}
    assert len(report.claim_s) >= 6
    assert len(report.submit_s) == 6


@integration
def test_a_quitters_group_goes_to_somebody_else_when_the_lease_is_over(service, hire, clock):
    group = put_group(service, "g", num_images=4)
    people = hire(CrowdConfig(num_people=2, quitters=0.5), half)
    quitter = next(one for one in people if one[0].quits_in_group is not None)
    other = next(one for one in people if one is not quitter)
    for n in range(quitter[0].quits_in_group):
        put_group(service, f"before{n}")
    report = run_crowd([quitter], idle_s=1)
    assert report.num_quit == 1
    clock.advance(1000)
    report = run_crowd([other], idle_s=1)
    assert report.num_groups >= 1
    assert service.group(group.group_id).state == "ready"


@integration
def test_a_crowd_stops_when_it_is_told(service, hire):
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    report = run_crowd(hire(CrowdConfig(num_people=2), half), stop=stop, idle_s=60)
    assert report.values == Counter()
