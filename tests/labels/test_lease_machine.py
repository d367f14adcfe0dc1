"""Whatever people and clocks do: no image is asked of more people than were wanted, nothing
accepted is lost, and every group comes to an end."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select
from ulid import ULID

from services.labels import leases
from services.labels.gold import GoldAnswer, mark
from services.labels.store.tables import Assignment, Group, GroupImage, Label
from services.labels.sweep import sweep
from services.web.problems import Problem
from tests.labels.labelling_cases import PLAIN, START, World, world

PEOPLE = st.sampled_from(["ann", "bob", "cem"])
SOURCES = ("web", "api")
SIZE = 3
VALUES = st.text(alphabet="ldus", min_size=SIZE, max_size=SIZE)
SOME = st.text(alphabet="ldus-", min_size=SIZE, max_size=SIZE)


class Leases(RuleBasedStateMachine):
    """People who claim, stall, vanish, come back and send again, by clocks that jump."""

    url: ClassVar[str | None] = None
    count: ClassVar[Callable[[], None]]

    def __init__(self) -> None:
        super().__init__()
        type(self).count()
        self._opened = world(PLAIN.model_copy(update={"max_staleness": 4}), self.url)
        self.here: World = self._opened.__enter__()
        self.leases: list[Assignment] = []
        self.accepted: dict[tuple[str, str], str] = {}
        self.num_groups = 0

    def teardown(self) -> None:
        """With people enough, every group ends."""
        self.here.set(gold_rate=0)
        self.here.wait(24 * 3600)  # past every lease, whatever the clock did
        for n in range(2 * self.num_groups):
            lease = self.here.claim(f"late {n}")
            if lease is not None:
                self.here.submit(lease, "l" * SIZE)
        sweep(self.here.session, self.here.now, self.here.settings)
        states = self.here.session.scalars(select(Group.state).where(~Group.is_gold))
        assert "open" not in list(states)
        self.nothing_accepted_is_lost()
        self._opened.__exit__(None, None, None)

    @initialize(overlap=st.sampled_from([1, 2]))
    def begin(self, overlap: int) -> None:
        self.put_group(overlap=overlap, policy=0, deadline=None, gold=False)
        self.claim(person="ann", holds=False, gold=0)

    @rule(
        overlap=st.sampled_from([1, 1, 1, 2]),
        policy=st.integers(0, 8),
        deadline=st.sampled_from([None, None, -100, 300]),
        gold=st.sampled_from([False, False, True]),
    )
    @precondition(lambda self: self.num_groups < 3)
    def put_group(self, overlap: int, policy: int, deadline: int | None, gold: bool) -> None:
        self.num_groups += 1
        id = f"group {self.num_groups}"
        at = None if deadline is None else START + timedelta(seconds=deadline)
        self.here.group(id, SIZE, overlap=overlap, policy_version=policy, deadline_at=at)
        if gold:
            answers = [GoldAnswer(0, "like")]
            mark(self.here.session, id, answers, self.here.now, self.here.settings)

    @rule(person=PEOPLE, holds=st.booleans(), gold=st.sampled_from([0, 0, 1]))
    def claim(self, person: str, holds: bool, gold: int) -> None:
        # What chance decides elsewhere, the machine decides.
        self.here.set(gold_rate=gold)
        holding = [lease.id for lease in self.leases] if holds else []
        lease = self.here.claim(person, holding=holding)
        if lease is not None and lease not in self.leases:
            self.leases.append(lease)
            self.asks_what_is_missing_and_no_more(lease)

    def asks_what_is_missing_and_no_more(self, lease: Assignment) -> None:
        """Of who came now: the images that, without them, had fewer people than were wanted."""
        group, me = self.here.state(lease.group_id), lease.annotator_id
        answered, owed = self._answers(), self._owed()
        images = select(GroupImage.id).where(GroupImage.group_id == group.id)
        wanted = {
            image
            for image in self.here.session.scalars(images)
            if group.is_gold
            or (
                len(answered[image] | (owed[image] - {me})) < group.overlap
                and me not in answered[image]
            )
        }
        assert {*lease.positions} == wanted

    @rule(data=st.data(), values=VALUES)
    @precondition(lambda self: self.leases)
    def submit(self, data: st.DataObject, values: str) -> None:
        self._send(data.draw(st.sampled_from(self.leases)), values, final=True)

    @rule(data=st.data(), values=SOME)
    @precondition(lambda self: self.leases)
    def submit_a_part(self, data: st.DataObject, values: str) -> None:
        self._send(data.draw(st.sampled_from(self.leases)), values, final=False)

    @rule(data=st.data(), values=SOME)
    @precondition(lambda self: self.leases)
    def submit_a_part_and_vanish(self, data: st.DataObject, values: str) -> None:
        self._send(data.draw(st.sampled_from(self.leases)), values, final=False)
        self.here.wait(121)

    @rule(data=st.data())
    @precondition(lambda self: self.leases)
    def heartbeat(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self._try(
            lambda: leases.heartbeat(
                self.here.session, lease, lease.token, self.here.now, self.here.settings
            )
        )

    @rule(data=st.data(), reason=st.none() | st.just("unclear"))
    @precondition(lambda self: self.leases)
    def give_back(self, data: st.DataObject, reason: str | None) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self._try(
            lambda: leases.release(
                self.here.session, lease, reason, self.here.now, self.here.settings
            )
        )

    @rule(data=st.data())
    @precondition(lambda self: self.leases)
    def take_back(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self._try(lambda: leases.revoke(self.here.session, lease.id, self.here.now, "admin"))

    @rule(person=PEOPLE, data=st.data(), value=st.sampled_from("ldus"))
    @precondition(lambda self: self.leases)
    def push(self, person: str, data: st.DataObject, value: str) -> None:
        image = min(data.draw(st.sampled_from(self.leases)).positions)
        result = self.here.label(person, [image], value)[0]
        if result.label is not None and result.problem is None:
            self.accepted[image, person] = result.label["value"]

    @rule(seconds=st.sampled_from([60, 119, 121, 3600, -60, -3600]))
    def time_passes(self, seconds: int) -> None:
        self.here.wait(seconds)

    @rule()
    def look_after(self) -> None:
        sweep(self.here.session, self.here.now, self.here.settings)

    @invariant()
    def no_image_is_asked_of_more_people_than_were_wanted(self) -> None:
        """Those who were asked and have answered, or may yet; nobody asked for what is pushed."""
        answered, owed = self._answers("web"), self._owed()
        query = select(GroupImage.id, Group.overlap).join(Group, Group.id == GroupImage.group_id)
        for image, overlap in self.here.session.execute(query.where(~Group.is_gold)):
            assert len(answered[image] | owed[image]) <= overlap, image

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        query = select(Label.image_id, Label.annotator_id, Label.value)
        stored = [
            ((image, person), value) for image, person, value in self.here.session.execute(query)
        ]
        assert len(dict(stored)) == len(stored)
        assert self.accepted.items() <= dict(stored).items()

    @invariant()
    def a_ready_group_has_told_the_trainer(self) -> None:
        groups = self.here.session.scalars(
            select(Group).execution_options(populate_existing=True).where(~Group.is_gold)
        )
        for group in groups:
            messages = self.here.messages(group.id)
            revisions = [message.reward_revision for message in messages]
            assert revisions == list(range(1, group.reward_revision + 1))
            if group.state != "open":
                said = "ready" if group.state == "ready" else "expired"
                assert messages[-1].payload["state"] == said
            if group.state == "ready":
                told = [image["mu"] for image in messages[-1].payload["images"]]
                assert group.aggregate is not None
                assert told == pytest.approx(group.aggregate["mu"])

    def _answers(self, *sources: str) -> dict[str, set[str]]:
        """Who has answered an image, of these sources if any are named."""
        query = select(Label.image_id, Label.annotator_id)
        rows = self.here.session.execute(query.where(Label.source.in_(sources or SOURCES)))
        return _grouped((image, person) for image, person in rows)

    def _owed(self) -> dict[str, set[str]]:
        """Who holds a lease on an image and has not answered, whether or not the lease is over."""
        query = select(Assignment.positions, Assignment.annotator_id)
        live = self.here.session.execute(query.where(Assignment.state == "live"))
        answered = self._answers()
        asked = ((image, person) for images, person in live for image in images)
        return _grouped(pair for pair in asked if pair[1] not in answered[pair[0]])

    def _send(self, lease: Assignment, values: str, final: bool) -> None:
        def send() -> None:
            for result in self.here.submit(lease, values, final):
                assert result.label is not None
                key = (result.label["image_id"], result.label["annotator_id"])
                self.accepted[key] = result.label["value"]

        self._try(send)

    def _try(self, operation: object) -> None:
        """As the writer does: a problem takes back what its operation did."""
        before = dict(self.accepted)
        assert callable(operation)
        try:
            with self.here.session.begin_nested():
                operation()
        except Problem:
            self.accepted = before


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return found


@pytest.fixture
def count_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Begins ids anew: what chance decides, it decides by them, and Hypothesis repeats examples."""
    numbers = itertools.count()

    def of_now(now: datetime) -> ULID:
        stamp = int(now.timestamp() * 1000).to_bytes(6, "big")
        return ULID.from_bytes(stamp + next(numbers).to_bytes(10, "big"))

    def of_nothing(size: int) -> bytes:
        return hashlib.blake2b(str(next(numbers)).encode(), digest_size=size).digest()

    def anew() -> None:
        nonlocal numbers
        numbers = itertools.count()

    monkeypatch.setattr(ULID, "from_datetime", of_now)
    monkeypatch.setattr("services.web.ids.secrets", SimpleNamespace(token_bytes=of_nothing))
    return anew


def test_every_image_is_asked_of_as_many_as_wanted_whatever_people_and_clocks_do(
    world_url: str | None, count_ids: Callable[[], None]
) -> None:
    class Here(Leases):
        url = world_url
        count = staticmethod(count_ids)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=25 if world_url is None else 5,  # a statement is a turn of another process
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
