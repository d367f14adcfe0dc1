"""The courier against a real HTTP server that takes, fails, hangs, floods and redirects."""

import asyncio
import json
import time

import pytest
from sqlalchemy import select

from services.labels import webhooks
from services.labels.courier import Courier
from services.labels.events import record_event
from services.labels.store.tables import Delivery, Webhook
from services.web.outbound import TIMEOUT_S, OutboundRules, outbound_client

pytestmark = pytest.mark.integration
LOCAL = OutboundRules(("127.0.0.1:*", "localhost:*"), allow_private=True)


@pytest.fixture
def send(database, clock):
    """Owe one delivery to a URL, send it, and say what is in the log then."""

    def deliver(url, rules=LOCAL):
        def owe(session):
            hook = webhooks.create(session, url, ["labels"], LOCAL, clock())
            record_event(session, "labels", "labels.received", {"group_id": "g1"}, clock())
            return hook

        hook = database.write_now(owe)
        asyncio.run(_once(Courier(database, rules, clock, timeout_s=0.8)))
        delivery = database.read_now(
            lambda s: s.scalars(select(Delivery).where(Delivery.webhook_id == hook.id)).one()
        )
        return hook, delivery

    return deliver


async def _once(courier):
    async with outbound_client() as http:
        await courier.deliver_due(http)


def test_a_delivery_arrives_signed_and_whole(receiver, send, clock):
    hook, delivery = send(receiver.url("ok"))
    (path, headers, body), *more = receiver.requests
    assert (path, more) == ("/ok", [])
    assert delivery.state == "delivered"
    assert headers["webhook-id"] == delivery.id
    assert headers["webhook-timestamp"] == str(int(clock().timestamp()))
    assert headers["webhook-signature"] == webhooks.sign(
        hook.secret, delivery.id, int(headers["webhook-timestamp"]), body
    )
    assert json.loads(body)["type"] == "labels.received"
    assert json.loads(body)["data"]["group_id"] == "g1"
    assert headers["Host"] == receiver.url("").split("/")[2]


def test_a_failing_receiver_is_tried_again_with_the_same_id(receiver, send, database, clock):
    _, delivery = send(receiver.url("fail"))
    assert (delivery.state, delivery.last_status) == ("pending", 500)
    clock.advance(6)
    asyncio.run(_once(Courier(database, LOCAL, clock)))
    ids = [headers["webhook-id"] for _, headers, _ in receiver.requests]
    assert ids == [delivery.id] * 2


@pytest.mark.parametrize("kind", ["hang", "drip"])
def test_a_receiver_that_takes_for_ever_is_left_when_its_time_is_out(receiver, send, kind):
    start = time.monotonic()
    _, delivery = send(receiver.url(kind))
    assert 0.7 < time.monotonic() - start < 4
    assert delivery.state == "pending"
    assert delivery.last_error == "no answer within 0.8 s"
    assert TIMEOUT_S == 5


def test_a_receiver_that_floods_is_not_read_to_the_end(receiver, send):
    _, delivery = send(receiver.url("flood"))
    assert delivery.state == "delivered"
    assert receiver.released.wait(5), "the connection stayed open"


def test_a_redirect_is_a_failure_and_is_not_followed(receiver, send):
    _, delivery = send(receiver.url("redirect"))
    assert [path for path, _, _ in receiver.requests] == ["/redirect"]
    assert (delivery.state, delivery.last_status) == ("pending", 302)


def test_a_receiver_that_is_gone_disables_its_webhook(receiver, send, database):
    hook, _ = send(receiver.url("gone"))
    assert database.read_now(lambda s: s.get(Webhook, hook.id)).state == "disabled"


def test_a_dead_receiver_is_an_error_in_the_log(receiver, send):
    receiver.close()
    _, delivery = send(receiver.url("ok"))
    assert delivery.state == "pending"
    assert "ConnectError" in delivery.last_error


def test_rules_hold_when_it_is_sent_whatever_they_were_when_it_was_made(receiver, send):
    for rules in (OutboundRules(("hooks.test",)), OutboundRules(("127.0.0.1:*", "localhost:*"))):
        _, delivery = send(receiver.url("ok", "localhost"), rules)
        assert delivery.last_error.startswith("not sent: ")
    assert receiver.requests == []


def test_two_couriers_send_a_delivery_once(receiver, database, clock):
    def owe(session):
        webhooks.create(session, receiver.url("ok"), ["labels"], LOCAL, clock())
        for n in range(8):
            record_event(session, "labels", "labels.received", {"n": n}, clock())

    database.write_now(owe)

    async def both():
        couriers = [Courier(database, LOCAL, clock) for _ in range(3)]
        for _ in range(3):
            await asyncio.gather(*(_once(courier) for courier in couriers))

    asyncio.run(both())
    assert len(receiver.requests) == 8
