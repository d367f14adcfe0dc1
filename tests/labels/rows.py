"""Rows that tests put into the database where the way they got there does not matter."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session

from services.labels.store.tables import Group, Question, RewardMessage, Run

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def add_group(session: Session, group_id: str, run_id: str = "run", state: str = "ready") -> Group:
    """A group without images, with its question and run."""
    if session.get(Question, "q") is None:
        session.add(Question(id="q", text="Do you like it?", created_at=NOON))
    if session.get(Run, run_id) is None:
        session.add(Run(id=run_id, newest_policy=0))
    session.flush()
    group = Group(
        id=group_id,
        run_id=run_id,
        prompt_id="p",
        prompt_text="a cat",
        question_id="q",
        policy_version=0,
        sampler={},
        auto_rewards={},
        num_images=0,
        body_sha256="",
        state=state,
        created_at=NOON,
    )
    session.add(group)
    session.flush()
    return group


def add_message(
    session: Session, group_id: str, run_id: str = "run", revision: int = 1, state: str = "ready"
) -> None:
    """A reward message that can be received at noon, and its group."""
    if session.get(Group, group_id) is None:
        add_group(session, group_id, run_id, state)
    message = RewardMessage(
        group_id=group_id,
        reward_revision=revision,
        run_id=run_id,
        payload={"state": state, "coverage": 1.0, "policy_version": 0, "images": []},
        visible_at=NOON,
        created_at=NOON,
    )
    session.add(message)
    session.flush()
