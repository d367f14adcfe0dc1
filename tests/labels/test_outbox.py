"""The transactional outbox: what is owed to whom, when it is tried again and when given up."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from services.labels import outbox, webhooks
from services.labels.events import record_event
from services.labels.outbox import MAX_ATTEMPTS, Outcome
from services.labels.store.tables import Delivery, Event, Webhook
from services.web.outbound import OutboundRules
from tests.labels.rows import NOON

pytestmark = pytest.mark.integration
RULES = OutboundRules(("hooks.test",))


@pytest.fixture
def hook(database):
    create = lambda s: webhooks.create(s, "https://hooks.test/in", ["labels"], RULES, NOON)  # noqa: E731
    return database.write_now(create)


def happen(database, topic="labels", fail=False):
    def operation(session):
        record_event(session, topic, "labels.received", {"group_id": "g1"}, NOON)
        if fail:
            raise RuntimeError("after the event")

    database.write_now(operation)


def deliveries(database):
    return database.read_now(lambda s: s.scalars(select(Delivery)).all())


def attempt(database, outcome, at):
    for parcel in database.write_now(lambda s: outbox.claim(s, at)):
        database.write_now(lambda s, p=parcel: outbox.settle(s, p, outcome, at))
        return parcel
    return None


def test_a_delivery_is_owed_if_and_only_if_its_event_is_committed(database, hook):
    with pytest.raises(RuntimeError):
        happen(database, fail=True)
    assert deliveries(database) == []
    happen(database)
    assert [d.webhook_id for d in deliveries(database)] == [hook.id]


def test_only_webhooks_of_the_topic_that_are_active_are_owed_one(database, hook):
    happen(database, topic="system")
    database.write_now(lambda s: setattr(s.get(Webhook, hook.id), "state", "disabled"))
    happen(database)
    assert deliveries(database) == []


def test_what_is_being_sent_is_not_sent_by_another_and_comes_back_if_its_sender_dies(
    database, hook
):
    happen(database)
    (parcel,) = database.write_now(lambda s: outbox.claim(s, NOON))
    assert parcel.body["data"]["group_id"] == "g1"
    assert database.write_now(lambda s: outbox.claim(s, NOON)) == []
    later = NOON + outbox.SENDING_TIME
    (again,) = database.write_now(lambda s: outbox.claim(s, later))
    assert (again.delivery_id, again.attempt) == (parcel.delivery_id, 2)


def test_attempts_are_further_and_further_apart_and_after_the_last_the_webhook_is_disabled(
    database, hook
):
    happen(database)
    now, pauses = NOON, []
    for _ in range(MAX_ATTEMPTS):
        attempt(database, Outcome(status=500), now)
        (delivery,) = deliveries(database)
        pauses.append((delivery.next_at - now).total_seconds())
        now = delivery.next_at
    assert all(4.5 * 4**n <= pause <= 86_400 for n, pause in enumerate(pauses[:7]))
    assert max(pauses) <= 86_400
    assert delivery.state == "failed"
    hook = database.read_now(lambda s: s.get(Webhook, hook.id))
    assert (hook.state, hook.num_failures) == ("disabled", MAX_ATTEMPTS)


def test_a_receiver_that_is_gone_is_asked_no_more(database, hook):
    happen(database)
    attempt(database, Outcome(status=410), NOON)
    assert database.read_now(lambda s: s.get(Webhook, hook.id)).state == "disabled"


def test_a_receiver_that_asks_for_time_gets_it_up_to_a_day(database, hook):
    happen(database)
    attempt(database, Outcome(status=429, retry_after_s=3600), NOON)
    (delivery,) = deliveries(database)
    assert delivery.next_at == NOON + timedelta(hours=1)
    assert outbox.pause_after(1, 10**6) == outbox.LONGEST_PAUSE


def test_a_success_is_final_and_forgets_failures(database, hook):
    happen(database)
    attempt(database, Outcome(status=503), NOON)
    attempt(database, Outcome(status=204), NOON + timedelta(minutes=1))
    (delivery,) = deliveries(database)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("delivered", 2, 204)
    assert database.read_now(lambda s: s.get(Webhook, hook.id)).num_failures == 0
    assert attempt(database, Outcome(status=204), NOON + timedelta(days=2)) is None


def test_a_replay_sends_the_same_delivery_again(database, hook):
    happen(database)
    first = attempt(database, Outcome(status=200), NOON)
    assert database.write_now(lambda s: outbox.replay(s, hook.id, None, NOON)) == 0
    ids = [first.delivery_id]
    assert database.write_now(lambda s: outbox.replay(s, hook.id, ids, NOON)) == 1
    again = attempt(database, Outcome(status=200), NOON)
    assert (again.delivery_id, again.attempt) == (first.delivery_id, 1)


def test_a_test_goes_to_its_own_webhook_whatever_its_topics(database, hook):
    database.write_now(
        lambda s: webhooks.create(s, "https://hooks.test/2", ["system"], RULES, NOON)
    )
    database.write_now(lambda s: webhooks.send_test(s, s.get(Webhook, hook.id), NOON))
    assert [d.webhook_id for d in deliveries(database)] == [hook.id]


def test_a_slow_webhook_does_not_hold_up_another(database, hook):
    database.write_now(
        lambda s: webhooks.create(s, "https://hooks.test/2", ["labels"], RULES, NOON)
    )
    for _ in range(10):
        happen(database)
    claimed = database.write_now(lambda s: outbox.claim(s, NOON))
    per_hook = [parcel.webhook_id for parcel in claimed]
    assert len(set(per_hook)) == 2
    assert max(per_hook.count(identity) for identity in per_hook) == outbox.IN_FLIGHT_PER_WEBHOOK


def test_what_is_old_is_forgotten_unless_it_is_still_to_be_sent(database, hook):
    for _ in range(3):
        happen(database)
    (parcel, *_) = database.write_now(lambda s: outbox.claim(s, NOON))
    database.write_now(lambda s: outbox.settle(s, parcel, Outcome(status=200), NOON))
    later = NOON + timedelta(days=1)
    assert database.write_now(lambda s: outbox.forget_old(s, NOON)) == 0
    assert database.write_now(lambda s: outbox.forget_old(s, later)) == 1
    left = {delivery.event_seq for delivery in deliveries(database)}
    assert len(left) == 2
    kept = set(database.read_now(lambda s: s.scalars(select(Event.seq)).all()))
    assert kept == left


def test_the_newest_event_is_kept_so_that_listeners_know_where_we_are(database):
    for _ in range(3):
        happen(database)
    assert database.write_now(lambda s: outbox.forget_old(s, NOON + timedelta(days=1))) == 2


def test_a_signature_is_that_of_the_standard():
    """The example of the Standard Webhooks specification's test suites."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    signed = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
