"""Reward messages: what the trainer is told of a group, written in the label's transaction.

A message is never changed once it may have been received; what changes is told in a message of a
higher reward revision, and older ones that nobody has taken are withdrawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services.labels.events import record_events
from services.labels.group_rows import LoadedGroup
from services.labels.store.many import insert_many
from services.labels.store.tables import RewardMessage, core
from tdm_core.label_posterior import GroupPosterior

if TYPE_CHECKING:
    from services.labels.settings import Settings

SAME = 1e-9
"""Posterior means that differ by less are the same."""

_messages = core(RewardMessage)


def is_due(
    session: Session,
    group: LoadedGroup,
    state: str,
    posterior: GroupPosterior,
    settings: "Settings",
) -> bool:
    """Whether the trainer has to be told: a new state, or a change of what it was told."""
    row = group.row
    if state != row.state:
        return True
    if state not in ("ready", "consumed"):
        return False
    moved = _moved(posterior.mu, _told(session, row))
    if state == "ready":
        return moved > SAME
    revise = settings.late_labels == "revise" and moved > settings.revise_above
    return revise and is_fresh(row, settings)


def is_fresh(row: Any, settings: "Settings") -> bool:
    """Whether what comes late to a loaded group is still worth telling."""
    staleness = row.newest_policy - row.policy_version
    return settings.max_staleness is None or staleness <= settings.max_staleness


@dataclass(frozen=True, slots=True)
class Due:
    """A group whose trainer has to be told."""

    group: LoadedGroup
    state: str
    posterior: GroupPosterior


def send(session: Session, due: Sequence[Due], now: datetime) -> None:
    """Enqueue these groups' next messages: `ready` with the posterior, or `expired` without."""
    for each in due:
        row = each.group.row
        if row.reward_revision:
            _withdraw(session, row.id, row.reward_revision + 1, now)
    messages = [_message(each, now) for each in due]
    insert_many(session, _messages, messages, ("group_id",))
    record_events(session, "rewards", [_event(message["payload"]) for message in messages], now)


def _message(due: Due, now: datetime) -> dict[str, Any]:
    row, state, posterior = due.group.row, due.state, due.posterior
    ready = state in ("ready", "consumed")
    payload = {
        "group_id": row.id,
        "run_id": row.run_id,
        "reward_revision": row.reward_revision + 1,
        "policy_version": row.policy_version,
        "coverage": posterior.coverage,
        "label_seq": max((vote.label["seq"] for vote in due.group.votes.values()), default=None),
        "state": "ready" if ready else "expired",
        "images": [
            _image(image, place, posterior if ready else None)
            for place, image in enumerate(due.group.images)
        ],
    }
    return {
        **{name: payload[name] for name in ("group_id", "run_id", "reward_revision")},
        "payload": payload,
        "visible_at": now,
        "reason": None if ready else state,
        "created_at": now,
    }


def _event(payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    told = {key: payload[key] for key in ("group_id", "run_id", "reward_revision", "coverage")}
    return f"group.{payload['state']}", told


def _image(image: Any, place: int, posterior: GroupPosterior | None) -> dict[str, Any]:
    about = {"image_id": image.id, "index": image.place}
    said = about | {"mu": None, "likes": 0.0, "n": 0.0, "rho": 0.0}
    if posterior is not None:
        said |= {name: getattr(posterior, name)[place] for name in ("mu", "likes", "n", "rho")}
    return said


def _withdraw(session: Session, group_id: str, revision: int, now: datetime) -> None:
    """Nobody needs an older message that waits."""
    older = (_messages.c.group_id == group_id, _messages.c.state == "pending")
    session.execute(
        update(_messages)
        .where(*older, _messages.c.receive_count == 0)
        .values(state="acked", acked_at=now, reason=f"superseded by revision {revision}")
    )


def _told(session: Session, row: Any) -> list[float]:
    """mu as the last message had it, which small changes since may have left behind."""
    query = select(_messages.c.payload).where(
        _messages.c.group_id == row.id, _messages.c.reward_revision == row.reward_revision
    )
    payload = session.scalar(query) or {"images": []}
    return [image["mu"] for image in payload["images"]]


def _moved(mu: list[float], told: list[float]) -> float:
    if len(told) != len(mu) or any(value is None for value in told):
        return float("inf")
    return max(abs(a - b) for a, b in zip(mu, told, strict=True))
