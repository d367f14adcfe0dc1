"""What the dashboard is told of labelling: counts by hand, and names for admins alone."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from services.labels import gold, statistics
from services.labels.gold import GoldAnswer
from services.labels.pace import Pace, Seconds
from services.labels.statistics import Minute
from services.labels.store.tables import Annotator, RewardMessage
from tests.labels.labelling_cases import START, World
from tests.labels.people import bearer
from tests.labels.rows import add_message


def look(here: World, run_id: str | None = None, with_names: bool = False) -> statistics.Statistics:
    return statistics.statistics(here.session, here.now, run_id, with_names)


def test_the_queue_is_counted_by_state_with_what_it_lacks(here: World) -> None:
    here.label("ann", here.group("done"), "lldd")
    here.label("ann", here.group("begun", overlap=2), "ll--")
    here.wait(60)
    here.group("new", 3)
    here.group("other", 3, run_id="other")
    assert here.claim("bob") is not None
    found = look(here, "run")
    assert found.queue.groups == {"open": 2, "ready": 1, "consumed": 0, "expired": 0, "retired": 0}
    assert found.queue.num_wanted == (8 - 2) + 3
    assert found.queue.oldest_open_at == START
    assert found.queue.num_leases == 1
    assert (found.num_labels, found.newest_at) == (6, START)
    assert found.rewards.depth == 1
    assert look(here).queue.groups["open"] == 3
    assert look(here, "nobody's").queue.groups["open"] == 0


def test_labels_are_counted_by_whole_minutes_and_none_is_a_zero(here: World) -> None:
    here.label("ann", here.group("g"), "ll--")
    here.wait(120)
    here.label("ann", here.group("h"), "llll")
    here.wait(60)
    here.label("ann", here.group("i"), "llll")  # this minute is not over
    minutes = look(here).minutes
    assert len(minutes) == statistics.MINUTES
    assert minutes[-3:] == [
        Minute(START + timedelta(minutes=n), count) for n, count in enumerate([2, 0, 4])
    ]
    assert sum(minute.num_labels for minute in minutes) == 6


def test_minutes_that_were_not_counted_whole_are_left_out(here: World) -> None:
    for n in range(4):
        here.label("ann", here.group(f"g{n}"), "llll")
        here.wait(60)
    found = statistics.statistics(here.session, here.now, counted=10)
    assert [minute.num_labels for minute in found.minutes] == [4, 4]


def test_the_like_rate_of_a_question_is_of_votes_that_count(here: World) -> None:
    here.label("ann", here.group("g"), "llld")
    here.label("ann", here.group("h"), "ldus")
    here.label("bob", here.group("i"), "dddd")
    here.session.execute(update(Annotator).where(Annotator.id == "bob").values(weight=0))
    (question,) = look(here, "run").questions
    assert (question.question_id, question.num_likes, question.num_dislikes) == ("like", 4, 2)
    assert (question.num_unsure, question.num_skips) == (1, 1)
    assert question.like_rate is not None
    assert question.like_rate.value == pytest.approx(4 / 6)
    assert (question.like_rate.num, question.like_rate.num_clusters) == (6, 2)
    assert look(here, "nobody's").questions == []


def work(here: World, who: str, lease, seconds: float, values: str = "llll") -> None:
    here.wait(seconds)
    here.submit(lease, values)


def test_a_group_that_was_claimed_ahead_takes_no_longer_than_its_person(here: World) -> None:
    here.set(max_leases=2)
    for n in range(3):
        here.group(f"g{n}")
    here.wait(100)
    first = here.claim("ann")
    ahead = here.claim("ann", holding={first.id})  # granted with the first, begun 20 s later
    work(here, "ann", first, 20)
    work(here, "ann", ahead, 30)
    here.wait(3000)  # nobody works
    work(here, "ann", here.claim("ann"), 40)
    found = look(here).pace
    assert found.on_a_group == Seconds(30.0, 38.0, 3)  # of 20, 30, 40
    assert found.until_ready == Seconds(150.0, pytest.approx(2582), 3)  # of 120, 150, 3190
    assert found.ready_an_hour == 3


def test_gold_other_runs_and_pushed_labels_take_time_and_are_no_group_of_the_run(
    here: World,
) -> None:
    here.set(max_leases=4)
    here.group("other", run_id="other")
    lease = here.claim("ann")
    images = here.group("g", overlap=2)
    own = here.claim("ann", holding={lease.id})
    work(here, "ann", lease, 50)
    here.label("bob", images, "llll")  # no lease, and not ann's time
    here.label("ann", here.group("pushed"), "llll")
    work(here, "ann", own, 7)
    found = look(here, "run").pace
    assert found.on_a_group == Seconds(7.0, 7.0, 1)
    assert found.until_ready == Seconds(28.5, pytest.approx(51.3), 2)  # of 0, 57
    images = here.group("gold")
    answers = [GoldAnswer(n, "like") for n in range(4)]
    gold.mark(here.session, "gold", answers, here.now, here.settings)
    here.label("ann", images, "llll")
    assert look(here, "run").pace == found


def test_times_are_of_the_newest_labels_alone(here: World) -> None:
    for n in range(6):
        here.group(f"g{n}")
        work(here, "ann", here.claim("ann"), 120)
    found = statistics.statistics(here.session, here.now, answers=10).pace
    assert found.on_a_group == Seconds(120.0, 120.0, 3)  # two and a half groups
    assert found.ready_an_hour == pytest.approx(2 / (240 / 3600))  # in the 4 minutes that they span
    assert statistics.statistics(here.session, here.now, answers=4).pace.ready_an_hour is None


def test_gold_and_who_is_suspended_or_shut_out(here: World) -> None:
    images = here.group("gold")
    answers = [GoldAnswer(n, "like") for n in range(4)]
    gold.mark(here.session, "gold", answers, here.now, here.settings)
    here.label("ann", images, "llld")
    here.label("bob", images, "dddd")
    for who, values in {"bob": {"weight": 0}, "cem": {"state": "excluded"}}.items():
        here.person(who)
        here.session.execute(update(Annotator).where(Annotator.id == who).values(values))
    found = look(here).gold
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.num_clusters) == (3 / 8, 2)
    assert (found.num_groups, found.num_suspended, found.num_excluded) == (1, 1, 1)
    assert look(here).num_labels == 0
    assert look(here).num_active == 2


def test_nothing_at_all_is_no_error_and_no_rate(here: World) -> None:
    found = look(here)
    assert (found.num_labels, found.newest_at) == (0, None)
    assert found.pace == Pace(None, None, 0)
    assert found.alpha is found.alpha_interval is None
    assert found.gold.accuracy is None
    assert [question.like_rate for question in found.questions] == [None]


def test_who_labels_and_holds_what_is_for_admins(here: World) -> None:
    here.label("ann", here.group("g"), "lldd")
    here.group("h")
    here.claim("bob")
    assert look(here).for_admins is None
    told = look(here, "run", with_names=True).for_admins
    assert told is not None
    assert [(each.name, each.habits.num_votes, each.weight) for each in told.people] == [
        ("ann", 4, 1.0)
    ]
    (lease,) = told.leases
    assert (lease.name, lease.group_id, lease.num_unanswered) == ("bob", "h", 4)
    other = look(here, "other", with_names=True).for_admins
    assert other is not None
    assert (other.people, other.leases) == ([], [])


@pytest.mark.integration
def test_over_http_on_every_database(client, database, clock, keys) -> None:
    def fill(session):
        here = World(session)
        here.now = clock() - timedelta(seconds=60)
        here.group("g")
        lease = here.claim("ann")
        here.wait(10)
        here.submit(lease, "lldd")
        here.wait(-10)
        add_message(session, "dead")
        session.execute(update(RewardMessage).values(state="dead", reason="no group of its run"))

    database.write_now(fill)

    def ask(role, **params):
        answer = client.get("/api/v1/statistics", headers=bearer(keys[role]), params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    found = ask("viewer", run_id="run")
    assert found["for_admins"] is None
    assert found["queue"]["groups"]["ready"] == 2
    assert found["rewards"]["dead"] == 2
    assert found["pace"]["on_a_group"] == {"median": 10, "p90": 10, "num_groups": 1}
    assert found["pace"]["until_ready"]["num_groups"] == 1
    assert found["minutes"][-1] == {"start": "2026-01-01T11:59:00Z", "num_labels": 4}
    assert found["questions"][0]["like_rate"]["value"] == 0.5
    assert ask("viewer", run_id="other")["rewards"]["dead"] == 0
    assert ask("service")["for_admins"] is None
    told = ask("admin")["for_admins"]
    assert [each["name"] for each in told["people"]] == ["ann"]
    letters = {each["group_id"]: each["reason"] for each in told["dead_letters"]}
    assert letters == dict.fromkeys(["dead", "g"], "no group of its run")
