"""Whatever people and clocks do: no group is labelled by more than were asked for, nothing that was
accepted is lost, and every group comes to an end."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select

from services.labels import leases
from services.labels.gold import GoldAnswer, mark
from services.labels.store.tables import Assignment, Group, Label
from services.labels.sweep import sweep
from services.web.problems import Problem
from tests.labels.labelling_cases import PLAIN, START, World, world

pytestmark = pytest.mark.unit

PEOPLE = st.sampled_from(["ann", "bob", "cem"])
SIZE = 3
VALUES = st.text(alphabet="ldus", min_size=SIZE, max_size=SIZE)
SOME = st.text(alphabet="ldus-", min_size=SIZE, max_size=SIZE)


class Leases(RuleBasedStateMachine):
    """People who claim, stall, vanish, come back and send again, by clocks that jump."""

    def __init__(self) -> None:
        super().__init__()
        self._opened = world(PLAIN.model_copy(update={"max_staleness": 4}))
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

    @rule(data=st.data(), values=VALUES)
    @precondition(lambda self: self.leases)
    def submit(self, data: st.DataObject, values: str) -> None:
        self._send(data.draw(st.sampled_from(self.leases)), values, final=True)

    @rule(data=st.data(), values=SOME)
    @precondition(lambda self: self.leases)
    def submit_a_part(self, data: st.DataObject, values: str) -> None:
        self._send(data.draw(st.sampled_from(self.leases)), values, final=False)

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
    def no_more_people_than_places(self) -> None:
        taken = Assignment.state.in_(("live", "submitted"))
        query = (
            select(Group.id, Group.overlap, func.count())
            .join(Assignment, Assignment.group_id == Group.id)
            .where(taken, ~Group.is_gold)
            .group_by(Group.id, Group.overlap)
        )
        for group_id, overlap, count in self.here.session.execute(query):
            assert count <= overlap, group_id

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


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
