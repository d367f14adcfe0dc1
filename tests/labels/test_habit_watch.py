"""Admins are told of habits that are worth a look: once, and nobody else is."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from services.labels.habit_watch import AGAIN, flagged_by_question, look, tell
from services.labels.store.database import Database
from services.labels.store.tables import Annotator, Event
from tests.labels.labelling_cases import World


def honest(here: World, people: Sequence[str], start: int, num_groups: int) -> None:
    """A group of eight a person and minute, every second image liked."""
    rng = random.Random(start)
    for n in range(start, start + num_groups):
        here.wait(60)
        for who in people:
            values = "".join(rng.sample("lllldddd", 8))
            here.label(who, here.group(f"{who}{n}", 8), values)


def flags_of(here: World, who: str) -> tuple[str, ...]:
    found = (each for _, each in flagged_by_question(here.session) if each.annotator_id == who)
    return next((each.flags for each in found), ())


def told(here: World) -> list[dict[str, Any]]:
    tell(here.session, flagged_by_question(here.session), here.now)
    events = here.session.scalars(select(Event).where(Event.type == "annotator.flagged"))
    return [event.data for event in events if event.audience == "admin"]


FIVE = ("ann", "bob", "cem", "dan", "eve")


def test_a_pace_that_departs_from_others_and_from_before_is_flagged(here: World) -> None:
    honest(here, FIVE, 0, 8)
    assert [flags_of(here, who) for who in FIVE] == [()] * 5
    here.wait(60)
    for n in range(5):
        here.label("eve", here.group(f"fast{n}", 8), "ldldldld")
    assert flags_of(here, "eve") == ("faster-than-before",)
    for n in range(20):
        if n % 5 == 0:
            here.wait(60)
        here.label("new", here.group(f"new{n}", 8), "ldldldld")
    assert "faster-than-others" in flags_of(here, "new")
    assert flags_of(here, "ann") == ()


def test_a_share_of_likes_that_jumps_is_flagged_and_a_run_that_gets_better_is_not(
    here: World,
) -> None:
    honest(here, FIVE, 0, 10)
    for n in range(5):
        here.wait(60)
        here.label("eve", here.group(f"eve-late{n}", 8), "l" * 8)
    assert flags_of(here, "eve") == ("likes-unlike-before",)
    for n in range(5):
        here.wait(60)
        for who in FIVE[:4]:
            here.label(who, here.group(f"{who}-late{n}", 8), "l" * 8)
    assert [flags_of(here, who) for who in FIVE[1:4]] == [()] * 3


def test_a_habit_is_told_once_a_day_and_of_the_excluded_nothing(here: World) -> None:
    for n in range(3):
        here.label("fan", here.group(f"f{n}", 8), "l" * 8)
        here.label("foe", here.group(f"o{n}", 8), "d" * 8)
    first = told(here)
    assert [(each["annotator_id"], each["new"]) for each in first] == [
        ("fan", ["always-the-same"]),
        ("foe", ["always-the-same"]),
    ]
    assert first[0] == {
        "annotator_id": "fan",
        "question_id": "like",
        "new": ["always-the-same"],
        "flags": ["always-the-same"],
        "num_votes": 24,
        "like_rate": 1.0,
    }
    here.now += AGAIN - timedelta(seconds=1)
    assert len(told(here)) == 2
    here.session.get_one(Annotator, "foe").state = "excluded"
    here.session.flush()
    here.now += timedelta(seconds=1)
    assert [each["annotator_id"] for each in told(here)] == ["fan", "foe", "fan"]


@pytest.mark.integration
def test_the_service_looks_when_there_are_labels(
    client: TestClient, app: FastAPI, database: Database
) -> None:
    def label(session: Any) -> None:
        here = World(session)
        for n in range(3):
            here.label("fan", here.group(f"f{n}", 8), "l" * 8)
            here.label("foe", here.group(f"o{n}", 8), "d" * 8)

    database.write_now(label)
    assert client.portal is not None
    newest = client.portal.call(look, app, 0)
    assert newest == 48
    assert client.portal.call(look, app, newest) == newest

    def types(session: Any) -> list[str]:
        return [event.type for event in session.scalars(select(Event))]

    assert database.read_now(types).count("annotator.flagged") == 2
