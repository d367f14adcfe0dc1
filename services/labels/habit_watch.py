"""Tells admins of habits that are worth a look, when they appear: an event `annotator.flagged`,
which webhooks of the topic get too. It judges nobody.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.labels.diagnosis import Habits, diagnose
from services.labels.events import record_event
from services.labels.store.tables import Annotator, Label, Question

INTERVAL_S = 30.0
AGAIN = timedelta(days=1)
"""How long nothing is said of a habit that was told: it may come and go at its bar."""


async def watch_habits(app: Any) -> None:
    """Consumes: the newest labels. Produces: events. Waits for: `INTERVAL_S`. Unblocked by: its
    cancellation alone."""
    seen = 0
    while True:
        seen = await look(app, seen)
        await asyncio.sleep(INTERVAL_S)


async def look(app: Any, seen: int) -> int:
    """Diagnose beside the writer if there are labels after number `seen`; the newest number."""
    database, now = app.state.database, app.state.clock()

    def flagged(session: Session) -> tuple[int, list[tuple[str, Habits]]]:
        newest = session.scalar(select(func.max(Label.seq))) or 0
        return newest, flagged_by_question(session) if newest > seen else []

    newest, found = await database.read(flagged)
    if found:
        await database.write(lambda session: tell(session, found, now))
    return newest


def flagged_by_question(session: Session) -> list[tuple[str, Habits]]:
    """Questions and who is worth a look there: people like one thing more than another."""
    asked = session.scalars(select(Question.id).where(Question.state == "active")).all()
    return [
        (question_id, habits)
        for question_id in asked
        for habits in diagnose(session, question_id=question_id).people
        if habits.flags and habits.state == "active"
    ]


def tell(session: Session, found: Sequence[tuple[str, Habits]], now: datetime) -> None:
    """An event a person with a flag that was not told within `AGAIN`; told once by however many
    processes look."""
    for question_id, habits in found:
        row = session.get_one(Annotator, habits.annotator_id, with_for_update=True)
        before = row.told or {}
        recent = (now - AGAIN).isoformat()
        new = [flag for flag in habits.flags if before.get(flag, "") <= recent]
        if not new:
            continue
        row.told = {**before, **dict.fromkeys(new, now.isoformat())}
        facts = {
            "annotator_id": habits.annotator_id,
            "question_id": question_id,
            "new": new,
            "flags": [*habits.flags],
            "num_votes": habits.num_votes,
            "like_rate": habits.like_rate,
        }
        record_event(session, "annotators", "annotator.flagged", facts, now, audience="admin")
    session.flush()
