"""`tdm-r1 serve` dies by SIGKILL under those who use it and starts again on its database: what was
acknowledged is there once, and nothing is left in a state that cannot go on."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks.label_server import LabelServer
from services.labels.courier import Courier
from services.labels.store.database import Database
from services.labels.store.tables import Assignment, Delivery, Event, Group, Label, RewardMessage
from services.web.clock import utc_now
from services.web.outbound import OutboundRules, outbound_client
from tests.labels.live import ask
from tests.labels.undeterred_users import Users
from tests.labels.webhook_receiver import Receiver

LEASE_S = 1.0
ALLOWED = {"webhook_hosts": ["127.0.0.1:*"], "webhook_private": True}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(1, marks=pytest.mark.integration),
        pytest.param(20, marks=pytest.mark.long),
    ],
)
def test_what_was_acknowledged_is_there_once_and_everything_goes_on(
    database_url: str, database: Database, receiver: Receiver, tmp_path: Path, kills: int
) -> None:
    with LabelServer(tmp_path, database_url, lease_seconds=LEASE_S, **ALLOWED) as server:
        users = Users(server)
        with users.connect(server.admin) as admin:
            ask(admin)
            hook = {"url": receiver.url("ok"), "topics": ["labels", "rewards"]}
            admin.request("POST", "/webhooks", json=hook)
            with users:
                for _ in range(kills):
                    users.await_labels(random.randint(10, 60))
                    time.sleep(random.uniform(0, 0.02))  # somewhere in what comes next
                    server.kill()
                    server.start()
                users.await_labels(10)
                users.await_rewards()
            assert all(admin.image(digest) for digest in users.digests)
    database.read_now(lambda session: labels_are_those_acknowledged(session, users.labels))
    database.read_now(lambda session: rewards_are_those_acknowledged(session, users.acked))
    database.read_now(no_lease_is_stuck)
    sent = deliver_the_rest(database)
    assert {headers["webhook-id"] for _, headers, _ in receiver.requests} == sent


def labels_are_those_acknowledged(session: Session, told: dict[str, tuple[str, str]]) -> None:
    """Each once, with its event and its group's count; and none that nobody was told of."""
    labels = session.scalars(select(Label)).all()
    assert {label.id: (label.image_id, label.value) for label in labels} == told
    counts = Counter(label.group_id for label in labels)
    assert counts == Counter(
        {group.id: group.num_labels for group in session.scalars(select(Group))}
    )
    received = select(Event).where(Event.type == "labels.received")
    events = Counter[str]()
    for event in session.scalars(received):
        events[event.data["group_id"]] += event.data["num_labels"]
    assert events == counts


def rewards_are_those_acknowledged(session: Session, told: set[tuple[str, int]]) -> None:
    """Every group is consumed, by messages without a gap, of which none waits."""
    groups = session.scalars(select(Group)).all()
    assert {group.state for group in groups} == {"consumed"}
    messages = session.scalars(select(RewardMessage)).all()
    assert {(each.group_id, each.reward_revision) for each in messages} == {
        (group.id, 1 + n) for group in groups for n in range(group.reward_revision)
    }
    assert {message.state for message in messages} == {"acked"}
    taken = [each for each in messages if each.receipt]
    assert {(each.group_id, each.reward_revision) for each in taken} >= told


def no_lease_is_stuck(session: Session) -> None:
    """What was submitted is whole; what is live runs out."""
    leases = session.scalars(select(Assignment)).all()
    labelled = {*session.execute(select(Label.image_id, Label.annotator_id))}
    soon = utc_now() + timedelta(seconds=LEASE_S)
    for lease in leases:
        if lease.state == "submitted":
            assert {(image, lease.annotator_id) for image in lease.positions} <= labelled
        if lease.state == "live":
            assert lease.expires_at <= soon


def deliver_the_rest(database: Database) -> set[str]:
    """What the dead were about to send goes out once its time is over; the ids of all."""
    later = utc_now() + timedelta(minutes=2)
    courier = Courier(database, OutboundRules(("127.0.0.1:*",), True), lambda: later)

    async def deliver() -> None:
        async with outbound_client() as http:
            while await courier.deliver_due(http):
                pass

    asyncio.run(deliver())
    deliveries: Sequence[Delivery] = database.read_now(
        lambda session: session.scalars(select(Delivery)).all()
    )
    assert {each.state for each in deliveries} == {"delivered"}
    wanted = select(Event.seq).where(Event.topic.in_(("labels", "rewards")))
    assert sorted(each.event_seq for each in deliveries) == sorted(
        database.read_now(lambda session: session.scalars(wanted).all())
    )
    return {each.id for each in deliveries}
