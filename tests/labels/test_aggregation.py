"""A label settles its group: posterior, state, reward message, in one transaction."""

import pytest

from services.labels import amending
from services.labels.aggregation import order_weight, refresh, refresh_later
from services.labels.store.tables import Annotator, Run
from services.labels.sweep import sweep
from services.web.auth import Principal
from tests.labels.labelling_cases import START, World

ADMIN = Principal("key", "k", "admin")


def amend(here: World, label_id: str, principal: Principal = ADMIN, **changes: object) -> None:
    opened = amending.open_label(here.session, label_id, principal)
    amending.amend(here.session, opened, changes, "test", here.now, here.settings)


def test_a_group_with_a_label_on_every_image_is_ready_and_says_so_once(here: World) -> None:
    images = here.group("g")
    here.label("ann", images[:3], "ldl")
    assert here.state("g").state == "open"
    here.label("ann", images[3:], "d")
    group = here.state("g")
    assert (group.state, group.reward_revision, group.num_labels) == ("ready", 1, 4)
    (message,) = here.messages("g")
    assert message.payload["state"] == "ready"
    assert message.payload["coverage"] == 1
    assert [image["image_id"] for image in message.payload["images"]] == images
    liked, disliked = (message.payload["images"][i] for i in (0, 1))
    assert liked["mu"] > 0.5 > disliked["mu"]
    assert [(each["likes"], each["n"]) for each in (liked, disliked)] == [(1, 1), (0, 1)]


def test_the_posterior_is_the_formula_by_hand(here: World) -> None:
    here.session.add(Run(id="run", newest_policy=0, like_rate=0.5))
    images = here.group("g", 2)
    here.label("ann", images, "ld")
    # Base rate of one like and one dislike: 1/2, so m_g = (2 * .5 + 1) / (2 + 2) = .5.
    aggregate = here.state("g").aggregate
    assert aggregate is not None
    assert aggregate["mu"] == pytest.approx([2 / 3, 1 / 3])
    assert aggregate["rho"] == pytest.approx([1 / 3, 1 / 3])
    assert aggregate["var"] == pytest.approx([2 / 9 / 4] * 2)


def test_the_strength_is_that_of_both_priors(here: World) -> None:
    here.set(k=8)
    here.label("ann", here.group("g", 2), "dd")
    here.label("ann", here.group("h", 2), "ll")
    # Base rate 2 of 4; m_h = (8 * .5 + 2) / (8 + 2) = .6, mu = (8 * .6 + 1) / (8 + 1).
    aggregate = here.state("h").aggregate
    assert aggregate is not None
    assert aggregate["mu"] == pytest.approx([5.8 / 9] * 2)


def test_a_skipped_image_is_answered_but_has_no_vote(here: World) -> None:
    images = here.group("g")
    here.label("ann", images, "ldss")
    group = here.state("g")
    assert group.state == "ready"  # half the images, and they differ
    assert group.aggregate is not None
    assert group.aggregate["n"] == [1, 1, 0, 0]
    assert group.aggregate["coverage"] == 0.5


def test_a_group_that_everybody_skipped_expires(here: World) -> None:
    images = here.group("g")
    here.label("ann", images, "ssss")
    assert here.state("g").state == "expired"
    (message,) = here.messages("g")
    assert message.payload["state"] == "expired"
    assert [image["mu"] for image in message.payload["images"]] == [None] * 4


@pytest.mark.parametrize(
    ("values", "state"), [("ld--", "ready"), ("l---", "expired"), ("ll--", "ready")]
)
def test_the_deadline_makes_ready_what_has_coverage_and_contrast(
    here: World, values: str, state: str
) -> None:
    images = here.group("g", deadline_at=START.replace(hour=1))
    chosen = [image for image, value in zip(images, values, strict=True) if value != "-"]
    here.label("ann", chosen, values.replace("-", ""))
    here.wait(3599)
    sweep(here.session, here.now, here.settings)
    assert here.state("g").state == "open"
    here.wait(1)
    assert sweep(here.session, here.now, here.settings).num_deadlines == 1
    assert here.state("g").state == state


def test_overlap_two_waits_for_two_answers_on_every_image(here: World) -> None:
    images = here.group("g", overlap=2)
    here.label("ann", images, "lddl")
    assert here.state("g").state == "open"
    said = here.label("bob", images, "lldl")
    assert here.state("g").state == "ready"
    (message,) = here.messages("g")
    assert message.payload["label_seq"] == max(each.label["seq"] for each in said if each.label)


def test_an_amended_label_bumps_the_revision_and_withdraws_what_waits(here: World) -> None:
    images = here.group("g")
    labels = here.label("ann", images, "lddd")
    assert labels[0].label is not None
    amend(here, labels[0].label["id"], value="dislike")
    first, second = here.messages("g")
    assert (first.state, second.state, second.reward_revision) == ("acked", "pending", 2)
    assert second.payload["images"][0]["mu"] < first.payload["images"][0]["mu"]
    amend(here, labels[0].label["id"], note="on second thought")
    assert len(here.messages("g")) == 2


@pytest.mark.parametrize(
    ("late_labels", "staleness", "num_messages"),
    [("reward_model_only", 0, 1), ("revise", 0, 2), ("revise", 9, 1)],
)
def test_a_late_label_revises_a_consumed_group_only_where_asked_for(
    here: World, late_labels: str, staleness: int, num_messages: int
) -> None:
    here.set(late_labels=late_labels, max_staleness=8)
    images = here.group("g")
    labels = here.label("ann", images, "lddd")
    here.state("g").state = "consumed"
    here.group("newer", policy_version=staleness)
    assert labels[0].label is not None
    amend(here, labels[0].label["id"], value="dislike")
    assert len(here.messages("g")) == num_messages
    assert here.state("g").state == "consumed"


def test_a_small_change_after_consumption_is_kept_and_not_sent(here: World) -> None:
    here.set(late_labels="revise")
    images = here.group("g")
    labels = here.label("ann", images, "luuu")
    here.state("g").state = "consumed"
    assert labels[1].label is not None
    amend(here, labels[1].label["id"], value="skip")
    assert len(here.messages("g")) == 1


def test_labels_that_come_after_expiry_make_a_late_reward(here: World) -> None:
    images = here.group("g", deadline_at=START)
    sweep(here.session, here.now, here.settings)
    assert here.state("g").state == "expired"
    here.label("ann", images, "lddl")
    assert here.state("g").state == "ready"
    assert [m.payload["state"] for m in here.messages("g")] == ["expired", "ready"]


def test_votes_of_an_excluded_person_cease_to_count_everywhere(here: World) -> None:
    images = here.group("g", overlap=2)
    here.label("ann", images, "llll")
    here.label("bob", images, "dldd")
    person = here.session.get_one(Annotator, "ann")
    person.state = "excluded"
    here.session.flush()
    refresh_later(here.session, "ann")
    assert sweep(here.session, here.now, here.settings).num_refreshed == 1
    group = here.state("g")
    assert group.aggregate is not None
    assert (group.aggregate["n"], group.reward_revision) == ([1, 1, 1, 1], 2)
    assert group.aggregate["m0"] == pytest.approx((1 + 1) / (4 + 2))
    person.state = "active"
    here.session.flush()
    refresh_later(here.session, "ann")
    sweep(here.session, here.now, here.settings)
    group = here.state("g")
    assert group.aggregate is not None
    assert (group.aggregate["n"], group.reward_revision) == ([2, 2, 2, 2], 3)
    assert group.aggregate["m0"] == pytest.approx((5 + 1) / (8 + 2))
    assert sweep(here.session, here.now, here.settings).num_refreshed == 0


def test_refreshing_twice_changes_nothing(here: World) -> None:
    here.label("ann", here.group("g"), "lddl")
    before = here.state("g").aggregate
    refresh(here.session, ["g"], here.now, here.settings)
    assert here.state("g").aggregate == before
    assert len(here.messages("g")) == 1


@pytest.mark.unit
def test_contrast_and_freshness_decide_what_is_labelled_first() -> None:
    even, sure = [0.5] * 4, [0.95] * 4
    assert order_weight(even, 0) > order_weight(sure, 0)
    assert order_weight(even, 8) == pytest.approx(order_weight(even, 0) + 2)
