"""From a group's labels to its posterior, its state and its reward message; formulas are in
`tdm_core.label_posterior`.

    open -> ready      every image has `overlap` answers; or at the deadline, with coverage and
                       contrast
    open -> expired    over without enough votes; later ones may still make it ready, late
    ready -> consumed  acknowledged by the trainer (reward_queue); amended labels may revise it
A skipped image is answered and has no vote. People whose votes do not count answer nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime
from math import log2
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from services.labels import rewards
from services.labels.group_rows import LoadedGroup, groups_by_id
from services.labels.run_prior import RunPrior, recount, run_prior
from services.labels.store.tables import DueRefresh, Group, Label, Run, core
from tdm_core.label_posterior import (
    GroupPosterior,
    group_posterior,
    no_contrast_probability,
    tally,
)

if TYPE_CHECKING:
    from services.labels.settings import Settings

FRESHNESS = 4
"""Policy versions after which an unlabelled group is worth half."""
SMALLEST_CONTRAST = 1e-6

_groups = core(Group)
_WRITE = (
    update(_groups)
    .where(_groups.c.id == bindparam("group"))
    .values(revision=_groups.c.revision + 1)
    .values(
        {
            name: bindparam(name)
            for name in (
                "aggregate",
                "num_labels",
                "num_answers",
                "order_weight",
                "state",
                "ready_at",
                "reward_revision",
            )
        }
    )
)


def refresh(
    session: Session, group_ids: Iterable[str], now: datetime, settings: "Settings"
) -> None:
    """Make the aggregates of these groups again, and send what follows from them."""
    settle(session, groups_by_id(session, group_ids).values(), 0, now, settings)


def give_up(
    session: Session, group_ids: Iterable[str], state: str, now: datetime, settings: "Settings"
) -> None:
    """End open groups now: ready if their votes are enough, else `state` (expired or retired)."""
    settle(session, groups_by_id(session, group_ids).values(), 0, now, settings, over=state)


def settle(
    session: Session,
    groups: Iterable[LoadedGroup],
    newest_seq: int,
    now: datetime,
    settings: "Settings",
    over: str | None = None,
) -> dict[str, str]:
    """Write aggregate and state of loaded groups, and the reward messages that are due: id to
    state. `newest_seq` is the newest label's, 0 where there is no new one; `over` ends open groups
    as that. Gold groups stay as they are: they make no reward, ever."""
    priors: dict[str, RunPrior] = {}
    states: dict[str, str] = {}
    changes: list[dict[str, Any]] = []
    due: list[rewards.Due] = []
    for group in groups:
        row = group.row
        states[row.id] = row.state
        if row.is_gold:
            continue
        if row.run_id not in priors:
            priors[row.run_id] = run_prior(session, row, newest_seq, settings)
        posterior = posterior_of(group, priors[row.run_id], settings)
        state = states[row.id] = next_state(group, posterior, over, now, settings)
        is_due = rewards.is_due(session, group, state, posterior, settings)
        if is_due:
            due.append(rewards.Due(group, state, posterior))
        changes.append(_change(group, posterior, state, is_due, now))
    if due:
        rewards.send(session, due, now)
    if changes:
        session.execute(_WRITE, changes)
    return states


def _change(
    group: LoadedGroup, posterior: GroupPosterior, state: str, is_sent: bool, now: datetime
) -> dict[str, Any]:
    row, mu = group.row, posterior.mu
    return {
        "group": row.id,
        "aggregate": {**vars(posterior), "mean": sum(mu) / len(mu)},
        "num_labels": sum(vote.label["retracted_at"] is None for vote in group.votes.values()),
        "num_answers": num_answers(group),
        "order_weight": order_weight(mu, row.policy_version),
        "state": state,
        "ready_at": now if state == "ready" != row.state else row.ready_at,
        "reward_revision": row.reward_revision + is_sent,
    }


def posterior_of(group: LoadedGroup, prior: RunPrior, settings: "Settings") -> GroupPosterior:
    """The posterior of every image, in the order of their index."""
    votes: dict[str, list[tuple[str, float]]] = {image.id: [] for image in group.images}
    for vote in group.votes.values():
        if vote.label["retracted_at"] is None:
            weight = vote.weight * prior.influence.get(vote.label["annotator_id"], 1.0)
            votes[vote.label["image_id"]].append((vote.label["value"], weight))
    scores = group.row.auto_rewards.get(settings.proxy_reward)
    return group_posterior(
        [tally(pairs) for pairs in votes.values()],
        prior.m0,
        k=prior.k,
        k_g=settings.k,
        priors=prior.priors(scores),
    )


def next_state(
    group: LoadedGroup,
    posterior: GroupPosterior,
    over: str | None,
    now: datetime,
    settings: "Settings",
) -> str:
    """Where a group that is not gold goes from its state; `over` ends an open one as that."""
    row = group.row
    if row.state in ("ready", "consumed"):
        return row.state
    enough = posterior.coverage == 1 or (
        posterior.coverage >= settings.coverage_min and posterior.contrast
    )
    if row.state == "open":
        late = row.deadline_at is not None and row.deadline_at <= now
        if not (over or late or num_answers(group) == len(group.images) * row.overlap):
            return "open"
        return "ready" if enough else over or "expired"
    # Expired or retired: what was still on its way may make it worth having.
    return "ready" if enough and rewards.is_fresh(row, settings) else row.state


def num_answers(group: LoadedGroup) -> int:
    """Answers of people who count; of an image no more than were asked for."""
    answers = Counter(image_id for (image_id, _), vote in group.votes.items() if vote.weight > 0)
    return sum(min(num, group.row.overlap) for num in answers.values())


def order_weight(mu: Collection[float], policy_version: int) -> float:
    """log2 of (1 - P0) 2^(version / 4): larger is labelled first.

    The run's newest version is left out, since it is the same for all its groups; who compares
    runs subtracts it, over 4.
    """
    contrast = max(1 - no_contrast_probability(list(mu)), SMALLEST_CONTRAST)
    return log2(contrast) + policy_version / FRESHNESS


def refresh_later(session: Session, annotator_id: str) -> None:
    """Mark every group that a person has labelled: their votes began or ceased to count."""
    due = core(DueRefresh)
    labelled = (
        select(Label.group_id)
        .where(Label.annotator_id == annotator_id, ~Label.is_gold)
        .where(Label.group_id.not_in(select(due.c.group_id)))
        .distinct()
    )
    session.execute(insert(due).from_select(["group_id"], labelled))


def refresh_due(session: Session, now: datetime, settings: "Settings", limit: int = 64) -> int:
    """Refresh up to `limit` marked groups; how many there were."""
    due = core(DueRefresh)
    query = select(due.c.group_id).limit(limit).with_for_update(skip_locked=True)
    ids = list(session.scalars(query))
    if ids:
        # Somebody's votes began or ceased to count, in the base rate too.
        runs = select(Run.id, Run.rate_seq).join(Group, Group.run_id == Run.id)
        for run_id, seq in session.execute(runs.where(Group.id.in_(ids)).distinct()).all():
            recount(session, run_id, seq, settings)
        refresh(session, ids, now, settings)
        session.execute(delete(due).where(due.c.group_id.in_(ids)))
    return len(ids)
