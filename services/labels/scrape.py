"""What the database knows, for Prometheus: looked up at each scrape, so that no copy goes stale."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.labels import reward_queue
from services.labels.store.tables import Annotator, Assignment, Group, Label
from tdm_core.label_agreement import krippendorff_alpha

WINDOW = 2000
"""Newest labels that activity and agreement are of."""
STATES = ("open", "ready", "consumed", "expired", "retired")
ACTIVE = timedelta(minutes=15)
"""Who labelled since then is active."""


def known_to_the_store(session: Session, now: datetime) -> list[Metric]:
    """Groups, leases, people and their agreement, the reward queue, as they stand."""
    return [_groups(session), _gold(session), *_gauges(session, now), *_queue(session, now)]


def _groups(session: Session) -> Metric:
    family = GaugeMetricFamily("tdmr1_groups", "Groups by state.", labels=["state"])
    rows = session.execute(select(Group.state, func.count()).group_by(Group.state))
    counts = {row[0]: row[1] for row in rows}
    for state in STATES:
        family.add_metric([state], counts.get(state, 0))
    return family


def _gold(session: Session) -> Metric:
    right, answered = session.execute(
        select(func.sum(Annotator.gold_right), func.sum(Annotator.gold_answered))
    ).one()
    family = CounterMetricFamily("tdmr1_gold_answers", "Answers to gold.", labels=["correct"])
    family.add_metric(["true"], right or 0)
    family.add_metric(["false"], (answered or 0) - (right or 0))
    return family


def _gauges(session: Session, now: datetime) -> Iterator[Metric]:
    live = (Assignment.state == "live", Assignment.expires_at > now)
    leases = session.scalar(select(func.count()).select_from(Assignment).where(*live))
    yield GaugeMetricFamily("tdmr1_leases_active", "Groups that somebody holds.", leases)
    # By number, which has an index; who labels a thousand times in 15 minutes hides nobody long.
    newest = select(Label).order_by(Label.seq.desc()).limit(WINDOW).subquery()
    recent = select(func.count(newest.c.annotator_id.distinct()))
    people = session.scalar(recent.where(newest.c.received_at > now - ACTIVE))
    yield GaugeMetricFamily("tdmr1_annotators_active", "Labelled in the last 15 minutes.", people)
    alpha = krippendorff_alpha(_verdicts(session))
    if alpha is not None:  # Absent is not zero: zero would say that they guess.
        help = f"Krippendorff's alpha of the newest {WINDOW} labels."
        yield GaugeMetricFamily("tdmr1_agreement_alpha", help, alpha)


def _queue(session: Session, now: datetime) -> Iterator[Metric]:
    queue = reward_queue.state(session, now)
    depth = queue.depth + queue.in_flight
    yield GaugeMetricFamily("tdmr1_reward_queue_depth", "Reward messages not acked yet.", depth)
    hidden = queue.in_flight
    yield GaugeMetricFamily("tdmr1_reward_queue_inflight", "Of these, handed out.", hidden)
    oldest = queue.oldest_created_at
    age_s = (now - oldest).total_seconds() if oldest else 0.0
    yield GaugeMetricFamily("tdmr1_reward_queue_oldest_age_seconds", "Of these.", age_s)


def _verdicts(session: Session) -> Iterable[list[str]]:
    """The newest verdicts by image, gold left out."""
    newest = (
        select(Label.image_id, Label.value)
        .where(~Label.is_gold, Label.retracted_at.is_(None), Label.value.in_(("like", "dislike")))
        .order_by(Label.seq.desc())
        .limit(WINDOW)
    )
    units: dict[str, list[str]] = {}
    for image_id, value in session.execute(newest):
        units.setdefault(image_id, []).append(value)
    return units.values()
