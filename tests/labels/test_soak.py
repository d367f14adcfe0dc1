"""A hundred people at work beside a trainer: nothing is lost, and memory stays what it is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks.label_server import LabelServer
from benchmarks.label_soak import SAMPLE_S, Soak, soak
from services.labels.store.database import Database
from services.labels.store.tables import Assignment, Label

PEOPLE = 100
GROWTH_MIB = 16
"""What the server may grow by once everybody is at work: caches of fixed size fill up."""


def run(folder: Path, database_url: str, seconds: float, median_s: float) -> tuple[Soak, int, int]:
    """What people did; labels and submitted assignments in the database after it."""
    with LabelServer(folder, database_url) as server:
        done = soak(server, PEOPLE, seconds, median_s)
    database = Database.open(server.database_url)
    try:
        labels = database.read_now(lambda s: s.scalar(select(func.count()).select_from(Label)))
        submitted = select(func.count()).where(Assignment.state == "submitted")
        return done, labels or 0, database.read_now(lambda s: s.scalar(submitted)) or 0
    finally:
        database.close()


@pytest.mark.parametrize(
    ("seconds", "median_s", "settled_s"),
    [
        pytest.param(60, 1.0, 20, id="a-minute", marks=pytest.mark.integration),
        pytest.param(
            3600, 3.0, 1800, id="an-hour", marks=[pytest.mark.long, pytest.mark.timeout(2 * 3600)]
        ),
    ],
)
def test_a_hundred_people_lose_nothing_and_memory_stays_what_it_is(
    tmp_path: Path,
    one_database_url: str,
    record_property: Callable[[str, object], None],
    seconds: float,
    median_s: float,
    settled_s: float,
) -> None:
    done, labels, submitted = run(tmp_path, one_database_url, seconds, median_s)
    record_property("soak", json.dumps(done.facts()))
    assert labels == done.shift.num_labels > 0
    assert submitted == len(done.shift.submits_s)
    assert done.num_rewards > 0
    settled = done.rss_mib[int(settled_s / SAMPLE_S) :]
    assert max(settled) - settled[0] < GROWTH_MIB, done.rss_mib
