"""Leases: a whole group to one person, fenced, never lost and never doubled."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from services.labels import leases
from services.labels.gold import GoldAnswer, mark
from services.labels.labelling import Verdict
from services.labels.store.tables import Annotator, Assignment, AuditEntry, Event
from services.labels.sweep import sweep
from services.web.problems import Problem
from tests.labels.labelling_cases import World


@contextmanager
def refused(code: str) -> Iterator[None]:
    """The block ends in a problem of this code."""
    with pytest.raises(Problem) as caught:
        yield
    assert caught.value.code == code


def claimed(here: World, person: str, **more: object) -> Assignment:
    lease = here.claim(person, **more)
    assert lease is not None
    return lease


def test_a_live_lease_comes_again_with_its_token(here: World) -> None:
    here.group("a")
    here.group("b")
    first = claimed(here, "ann")
    here.wait(119)
    assert claimed(here, "ann").token == first.token
    here.wait(1)
    again = claimed(here, "ann")
    assert again.id != first.id
    assert again.token != first.token


def test_one_who_holds_a_lease_may_ask_for_the_next_up_to_a_bound(here: World) -> None:
    here.set(max_leases=2)
    for name in "abc":
        here.group(name)
    first = claimed(here, "ann")
    second = claimed(here, "ann", holding=[first.id])
    assert first.group_id != second.group_id
    assert here.claim("ann", holding=[first.id, second.id]) is None


def test_two_people_never_hold_one_group_of_overlap_one(here: World) -> None:
    here.group("g")
    claimed(here, "ann")
    assert here.claim("bob") is None
    here.wait(120)
    assert claimed(here, "bob").group_id == "g"


def test_a_group_is_never_given_again_to_who_labelled_or_skipped_it(here: World) -> None:
    here.group("g", overlap=3)
    lease = claimed(here, "ann")
    here.submit(lease, "lddl")
    assert here.claim("ann") is None
    lease = claimed(here, "bob")
    own = leases.own(here.session, lease.id, "bob")
    leases.release(here.session, own, "cannot tell", here.now, here.settings)
    assert here.claim("bob") is None
    here.group("pushed", overlap=2)
    pushed = here.group("other", overlap=2)
    here.label("ann", pushed, "dddd")
    assert claimed(here, "ann").group_id == "pushed"


def test_three_skips_retire_a_group_and_the_trainer_hears_of_it(here: World) -> None:
    here.group("g")
    for person in ("ann", "bob", "cem"):
        assert here.state("g").state == "open"
        own = leases.own(here.session, claimed(here, person).id, person)
        leases.release(here.session, own, "broken image", here.now, here.settings)
    assert here.state("g").state == "retired"
    (message,) = here.messages("g")
    assert (message.payload["state"], message.reason) == ("expired", "retired")


def test_a_released_group_returns_to_the_pool_and_to_the_same_person(here: World) -> None:
    here.group("g")
    own = leases.own(here.session, claimed(here, "ann").id, "ann")
    leases.release(here.session, own, None, here.now, here.settings)
    leases.release(here.session, own, None, here.now, here.settings)
    assert claimed(here, "ann").group_id == "g"


def test_started_groups_come_first_then_priority_then_contrast_and_freshness(here: World) -> None:
    here.group("stale", policy_version=0)
    here.group("fresh", policy_version=8)
    here.group("urgent", policy_version=0, priority=1)
    started = here.group("started", policy_version=0)
    here.label("somebody", started[:1], "l")
    order = [claimed(here, f"person {n}").group_id for n in range(4)]
    assert order == ["started", "urgent", "fresh", "stale"]


def test_a_heartbeat_prolongs_until_the_lease_is_over(here: World) -> None:
    here.set(lease_max_seconds=300)
    here.group("g")
    lease = claimed(here, "ann")
    for _ in range(4):
        here.wait(100)
        if here.now < lease.granted_at.replace(minute=5):
            own = leases.own(here.session, lease.id, "ann")
            leases.heartbeat(here.session, own, lease.token, here.now, here.settings)
    assert (lease.expires_at - lease.granted_at).total_seconds() == 300
    with pytest.raises(leases.LeaseLost):
        leases.heartbeat(here.session, lease, lease.token, here.now, here.settings)


@pytest.mark.parametrize(("seconds", "live"), [(119.999999, True), (120, False), (3720, False)])
def test_a_lease_ends_at_its_end_to_the_microsecond(
    here: World, seconds: float, live: bool
) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.wait(seconds)
    assert leases.is_live(lease, here.now) == live
    assert (here.claim("bob") is None) == live


def test_a_clock_set_back_takes_no_lease_away(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.wait(-3600)
    assert here.claim("bob") is None
    own = leases.own(here.session, lease.id, "ann")
    before = own.expires_at
    leases.heartbeat(here.session, own, lease.token, here.now, here.settings)
    assert own.expires_at == before
    here.submit(lease, "lddl")
    assert here.state("g").state == "ready"


def test_a_clock_set_back_gives_no_place_to_two(here: World) -> None:
    here.group("g")
    first = claimed(here, "ann")
    here.wait(121)
    second = claimed(here, "bob")
    here.wait(-60)
    here.submit(second, "dddd")
    with refused("lease-lost"), here.session.begin_nested():
        here.submit(first, "llll")
    assert here.state("g").num_labels == 4


def test_work_that_comes_late_is_taken_while_the_place_is_free(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.wait(500)
    sweep(here.session, here.now, here.settings)
    here.submit(lease, "lddl")
    assert here.state("g").state == "ready"


def test_work_that_comes_when_the_place_is_taken_goes_back_to_its_sender(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.wait(120)
    rival = claimed(here, "bob")
    with pytest.raises(leases.LeaseLost) as caught:
        here.submit(lease, "lddl")
    values = [verdict.value for verdict in caught.value.work]
    assert values == ["like", "dislike", "dislike", "like"]
    here.submit(rival, "dddd")
    assert here.state("g").num_labels == 4


def test_ones_own_later_lease_gives_way_to_work_on_the_earlier(here: World) -> None:
    here.group("g")
    first = claimed(here, "ann")
    here.wait(120)
    second = claimed(here, "ann")
    assert second.id != first.id
    here.submit(first, "lddl")
    here.session.refresh(second)
    assert second.state == "released"
    assert here.state("g").num_labels == 4


def test_a_wrong_token_is_no_lease(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    own = leases.own(here.session, lease.id, "ann")
    with pytest.raises(leases.LeaseLost):
        leases.submit(here.session, own, "guess", [], True, here.now, here.settings)
    with refused("not-found"):
        leases.own(here.session, lease.id, "bob")


def revoked(here: World, lease: Assignment) -> str:
    """The state of a lease that an admin takes back."""
    return leases.revoke(here.session, lease.id, here.now, "admin").state


def test_a_lease_that_is_taken_back_goes_to_others_and_not_to_its_holder_again(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    assert revoked(here, lease) == revoked(here, lease) == "revoked"
    own = leases.own(here.session, lease.id, "ann")
    with pytest.raises(leases.LeaseLost, match="has been revoked"):
        leases.heartbeat(here.session, own, lease.token, here.now, here.settings)
    leases.release(here.session, own, None, here.now, here.settings)
    assert here.claim("ann") is None
    rival = claimed(here, "bob")
    with pytest.raises(leases.LeaseLost) as caught, here.session.begin_nested():
        here.submit(lease, "lddl")
    assert len(caught.value.work) == 4
    here.submit(rival, "dddd")
    assert here.state("g").num_labels == 4


def test_work_on_a_lease_that_was_taken_back_is_taken_while_the_place_is_free(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    revoked(here, lease)
    here.submit(lease, "lddl")
    assert here.state("g").state == "ready"
    with refused("assignment-finished"):
        revoked(here, lease)


def test_what_is_over_is_not_taken_back_and_what_is_told_once(here: World) -> None:
    here.group("g")
    with refused("not-found"):
        leases.revoke(here.session, "nothing", here.now, "admin")
    first = claimed(here, "ann")
    here.wait(120)
    sweep(here.session, here.now, here.settings)
    second = claimed(here, "bob")
    assert [revoked(here, each) for each in (first, second, second)] == [
        "expired",
        "revoked",
        "revoked",
    ]
    (entry,) = here.session.scalars(select(AuditEntry).where(AuditEntry.action == "lease.revoke"))
    assert (entry.actor, entry.object) == ("admin", second.id)
    (event,) = here.session.scalars(select(Event).where(Event.type == "lease.revoked"))
    assert event.data == {"assignment_id": second.id, "annotator_id": "bob"}
    assert event.audience == "annotator:bob"


def test_partial_work_keeps_the_lease_and_final_wants_every_image(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.submit(lease, "l-d-", final=False)
    assert claimed(here, "ann").id == lease.id
    with refused("labels-incomplete"), here.session.begin_nested():
        here.submit(lease, "-d--")
    here.submit(lease, "-d-l")
    assert here.state("g").state == "ready"


def test_a_repeated_submit_is_the_same_and_another_value_is_refused(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    assert {result.status for result in here.submit(lease, "lddl")} == {201}
    assert {result.status for result in here.submit(lease, "lddl")} == {200}
    with refused("label-exists"):
        here.submit(lease, "llll")


def test_a_part_that_is_stored_is_said_again_whoever_has_the_rest_by_now(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    first = here.submit(lease, "l---", final=False)
    here.wait(120)
    rival = claimed(here, "bob")
    again = here.submit(lease, "l---", final=False)
    assert [(r.status, r.label["id"]) for r in again] == [(200, first[0].label["id"])]
    with pytest.raises(leases.LeaseLost):
        here.submit(lease, "ll--", final=False)
    here.submit(rival, "-ddd")
    assert here.state("g").state == "ready"


def test_what_somebody_began_is_finished_by_the_next_who_is_asked_the_rest_alone(
    here: World,
) -> None:
    images = here.group("g")
    here.submit(claimed(here, "ann"), "l-d-", final=False)
    here.wait(120)
    lease = claimed(here, "bob")
    assert {*lease.positions} == {images[1], images[3]}
    assert here.claim("cem") is None
    with refused("image-unknown"), here.session.begin_nested():
        on_first = [Verdict(images[0], here.person("bob"), "like")]
        leases.submit(here.session, lease, lease.token, on_first, False, here.now, here.settings)
    here.submit(lease, "-l-l")
    assert (here.state("g").state, here.state("g").num_labels) == ("ready", 4)


def test_who_began_and_lost_the_lease_may_finish(here: World) -> None:
    images = here.group("g")
    here.submit(claimed(here, "ann"), "l---", final=False)
    here.wait(120)
    lease = claimed(here, "ann")
    assert {*lease.positions} == {*images[1:]}
    here.submit(lease, "-ddl")
    assert here.state("g").state == "ready"


def test_of_an_image_as_many_are_asked_as_were_wanted_whoever_has_answered_the_others(
    here: World,
) -> None:
    images = here.group("g", overlap=2)
    here.label("user", images[:1], "l")
    first = claimed(here, "ann")
    here.submit(first, "l---", final=False)
    assert {*claimed(here, "bob").positions} == {*images[1:]}
    assert here.claim("cem") is None
    here.wait(120)
    here.label("other user", images[1:3], "ll")
    # Nobody holds anything: image 0 has two answers, images 1 and 2 have one, image 3 has none.
    assert {*claimed(here, "ann").positions} == {*images[1:]}
    assert {*claimed(here, "bob").positions} == {images[3]}


def test_labels_pushed_meanwhile_leave_a_live_lease_alone_and_end_a_lost_one(here: World) -> None:
    for name in "ab":
        here.group(name)
    live, lost = claimed(here, "ann"), claimed(here, "bob")
    here.wait(60)
    own = leases.own(here.session, live.id, "ann")
    leases.heartbeat(here.session, own, live.token, here.now, here.settings)
    here.wait(60)
    here.label("user", [min(live.positions), min(lost.positions)], "ll")
    here.submit(live, "dddd")
    with refused("lease-lost"), here.session.begin_nested():
        here.submit(lost, "dddd")
    assert {*claimed(here, "cem").positions} == {*lost.positions} - {min(lost.positions)}


def test_work_that_was_sent_in_part_may_be_ended_late_though_all_is_answered(here: World) -> None:
    here.group("g")
    lease = claimed(here, "ann")
    here.submit(lease, "lddl", final=False)
    here.wait(500)
    assert here.claim("bob") is None
    assert {result.status for result in here.submit(lease, "lddl")} == {200}


def test_labels_of_those_below_the_gold_bar_leave_the_place_free(here: World) -> None:
    here.group("g")
    here.person("spam")
    here.session.get_one(Annotator, "spam").weight = 0
    here.submit(claimed(here, "spam"), "llll")
    assert here.state("g").state == "open"
    assert claimed(here, "ann").group_id == "g"


def test_gold_is_given_at_its_rate_and_each_once(here: World) -> None:
    here.set(gold_rate=0.25)
    for n in range(100):
        here.group(f"gold {n}", 1)
        mark(here.session, f"gold {n}", [GoldAnswer(0, "like")], here.now, here.settings)
        here.group(f"plain {n}", 1)
    given = []
    for _ in range(60):
        lease = claimed(here, "ann")
        here.submit(lease, "l")
        given.append(lease.group_id)
    kinds = Counter(id.split()[0] for id in given)
    assert 5 <= kinds["gold"] <= 30
    assert len(set(given)) == 60


def test_a_newcomer_answers_gold_first_as_far_as_there_is_any(here: World) -> None:
    here.set(gold_rate=0, gold_first=5)
    for n in range(4):
        here.group(f"gold {n}", 2)
        answers = [GoldAnswer(0, "like"), GoldAnswer(1, "dislike")]
        mark(here.session, f"gold {n}", answers, here.now, here.settings)
        here.group(f"plain {n}", 2)
    given = []
    for _ in range(5):
        lease = claimed(here, "ann")
        here.submit(lease, "ll")
        given.append(lease.group_id.split()[0])
    assert given == ["gold"] * 3 + ["plain"] * 2
    here.set(gold_first=100)
    given = []
    for _ in range(3):
        lease = claimed(here, "ann")
        here.submit(lease, "ll")
        given.append(lease.group_id.split()[0])
    assert given == ["gold", "plain", "plain"]


def test_positions_are_shuffled_by_the_server(here: World) -> None:
    orders = set()
    for n in range(8):
        images = here.group(f"g{n}")
        lease = claimed(here, f"person {n}")
        assert sorted(lease.positions) == sorted(images)
        orders.add(tuple(sorted(images).index(image) for image in lease.positions))
    assert len(orders) > 2
