"""Leases among processes, over the real database: people stall, vanish and send twice."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.store.database import Database
from services.labels.store.tables import Group, GroupImage, Label, RewardMessage
from tests.labels.labelling_cases import World
from tests.labels.stalling_people import SETTINGS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROCESSES, GROUPS, IMAGES = 3, 40, 3


def put_groups(session: Session) -> None:
    here = World(session, SETTINGS)
    for n in range(GROUPS):
        here.group(f"g{n:02d}", IMAGES, overlap=1 + n % 2)


def test_every_image_is_labelled_by_as_many_as_were_asked_for_and_nothing_is_lost(
    database_url: str,
) -> None:
    database = Database.open(database_url)
    database.write_now(put_groups)
    command = [sys.executable, "-m", "tests.labels.stalling_people", database_url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([*command, f"p{n}"], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for n in range(PROCESSES)
    ]
    lines = [line for each in processes for line in each.communicate(timeout=100)[0].splitlines()]
    assert [each.returncode for each in processes] == [0] * PROCESSES
    told = [json.loads(line) for line in lines]
    assert any("lost" in line for line in told)  # or the people were too quick for this test
    accepted = [line for line in told if "lost" not in line]
    database.read_now(lambda session: check(session, accepted))
    database.close()


def check(session: Session, accepted: list[dict[str, Any]]) -> None:
    """What the tables say of the work, against what people were told."""
    groups = {group.id: group for group in session.scalars(select(Group))}
    assert {group.state for group in groups.values()} == {"ready"}
    num_labels = Counter(session.scalars(select(Label.image_id)))
    images = session.scalars(select(GroupImage)).all()
    assert num_labels == {image.id: groups[image.group_id].overlap for image in images}
    stored = {
        (label.image_id, label.annotator_id): label.value
        for label in session.scalars(select(Label))
    }
    for told in accepted:
        for image_id, value in told["values"].items():
            assert stored[image_id, told["person"]] == value
    assert len(session.scalars(select(RewardMessage)).all()) == GROUPS
