"""Runs with people: a real service, real requests, simulated people, the toy world."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, select

from services.config import RunConfig
from services.labels.crowd import CrowdConfig
from services.labels.store.tables import Group, Label, RewardMessage
from services.run_store import commands
from services.run_store.forms import is_group_event
from services.run_store.images import ImageStore
from services.run_store.tail import Tail
from services.runs_api.checkpoints import checkpoints_of
from services.runs_api.group_index import GroupIndex, GroupQuery
from services.runs_api.human_agreement import HumanAgreement
from services.runs_api.library import Library
from tests.labels.people_at_work import KEY_ENV, LabelOffice, label_office
from tests.one_ray import one_ray
from tests.train_cases import Running, metrics, reward, toy_run

pytestmark = pytest.mark.integration


def upper_half(image: NDArray[np.uint8]) -> float:
    """What the simulated people like: the toy world's own reward, with some doubt."""
    return 0.95 if image[0, 1, 0] > 128 else 0.05


def human_run(
    folder: Path, url: str, automatic=False, runtime="local", **options: Any
) -> RunConfig:
    options = {
        "url": url,
        "key_env": KEY_ENV,
        "max_open_groups": 24,
        "poll_s": 0.1,
        "overlap": 1,
    } | options
    people = {"name": "human", "kind": "human", "options": options}
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 8}
    return toy_run(
        folder,
        run={"iterations": 100_000, "name": "people"},
        algorithm={
            "replay": replay,
            "group_size": 4,
            "num_groups": 2,
            "advantages": {"combination": "per_reward_advantage"},
        },
        rewards=[reward(), people] if automatic else [people],
        cluster={"rollout_groups": 2, "runtime": runtime},
        telemetry={"images_every": int(automatic)},
    )


def total(lines: list[dict[str, Any]], name: str) -> float:
    return sum(line.get(name) or 0.0 for line in lines)


def states(office: LabelOffice, table: Any) -> Counter[str]:
    return Counter(
        office.database.read_now(lambda session: session.scalars(select(table.state)).all())
    )


def heard(running: Running, name: str) -> float:
    """Sum of a number over all lines so far."""
    lines = metrics(running.folder) if running.folder.metrics.is_file() else []
    return total(lines, f"reward/human/{name}")


def stop(running: Running) -> list[dict[str, Any]]:
    commands.request(running.folder.path, "stop")
    running.join()
    assert running.fault is None
    return metrics(running.folder)


def agreement_of(running: Running) -> HumanAgreement:
    """What the run's folder tells of people against others."""
    run = Library(running.folder.path.parent).find(running.folder.id)
    assert run is not None
    with run.images() as index:
        return index.labelled.agreement()


def test_a_run_of_people_alone_learns_from_half_labelled_groups(
    tmp_path: Path, one_database_url: str
) -> None:
    with label_office(tmp_path / "labels", one_database_url) as office:
        office.hire(CrowdConfig(num_people=4, judged=0.5), upper_half)
        running = Running(human_run(tmp_path, office.url))
        running.until(lambda status: status.get("surrogate_version", 0) >= 3)
        lines = stop(running)
        messages = states(office, RewardMessage)
        newest = office.database.read_now(lambda session: session.scalar(func.max(Label.seq)))
    drawn = [line for line in lines if "reward/human/mean" in line]
    assert all(0 < line["reward/human/mean"] < 1 for line in drawn)
    assert all(line["advantage/valid"] == 1 for line in drawn)  # unlabelled images have a mean
    assert total(lines, "reward/human/ready") >= 6
    assert total(lines, "reward/human/votes") == 2 * total(lines, "reward/human/ready")
    assert lines[-1]["replay/late_records"] == 0
    assert messages["dead"] == 0
    # What the last line has not told may have been heard: no message is acknowledged unheard.
    assert messages["acked"] <= total(lines, "reward/human/ready") + 8
    (checkpoint,) = checkpoints_of(running.folder.checkpoints)
    learned = checkpoint.labels
    assert learned is not None
    assert learned.answers >= 6  # two groups an update
    assert learned.votes == 2 * learned.answers
    assert 0 < learned.newest_label <= newest
    found = agreement_of(running)
    assert found.num_groups >= 6
    assert found.num_votes == 2 * found.num_groups  # half of four images
    assert found.num_compared >= 3  # an update's two groups at least once more than the surrogate's
    assert [judge.name for judge in found.judges] == ["the surrogate"]


def test_labels_are_folded_in_where_automatic_rewards_are_trained_on_first(
    tmp_path: Path, one_database_url: str
) -> None:
    with label_office(tmp_path / "labels", one_database_url) as office:
        running = Running(human_run(tmp_path, office.url, automatic=True))
        running.until(lambda status: status.get("surrogate_version", 0) >= 3)
        office.hire(CrowdConfig(num_people=3), upper_half)
        running.until(lambda _: any("reward/human/mean" in m for m in metrics(running.folder)))
        lines = stop(running)
        told = office.database.read_now(lambda session: session.scalar(select(Group.auto_rewards)))
    assert [len(values) for values in told.values()] == [4]
    first = next(n for n, line in enumerate(lines) if "reward/human/mean" in line)
    assert any("reward/upper_half/mean" in line for line in lines[:first])
    assert lines[first]["replay/label_weight"] <= 1
    assert [judge.name for judge in agreement_of(running).judges] == ["the surrogate", "upper_half"]
    _check_histories(running)


def _check_histories(running: Running) -> None:
    """Groups that people labelled were made, judged, asked about and labelled, in this order."""
    store = ImageStore(running.folder.images)
    index = GroupIndex()
    index.add(store.index())
    index.add_events(Tail(running.folder.groups, is_ours=is_group_event).read_all())
    groups, _ = index.page(GroupQuery(reward="human", min_reward=0.0), 100)
    assert groups
    for group in groups:
        told = [event.event for event in index.history(group.group_id)]
        places = [told.index(name) for name in ("generated", "judged", "asked", "labelled")]
        assert places == sorted(places)
        said = group.images[0].rewards["human"]
        assert (said["state"], said["version"]) == ("ready", "like")
        assert said["parts"]["n"] >= 1


def test_a_run_goes_on_when_all_people_have_left_and_then_the_service(
    tmp_path: Path, one_database_url: str
) -> None:
    with label_office(tmp_path / "labels", one_database_url) as office:
        running = Running(human_run(tmp_path, office.url, deadline_s=1))
        running.until(lambda _: heard(running, "expired") >= 4)
        office.close()
        running.until(lambda _: heard(running, "unreachable") >= 1)
        at = running.folder.status()["iteration"]
        running.until(lambda status: status["iteration"] > at + 5)
        lines = stop(running)
    assert running.summary["surrogate_version"] == 0
    assert total(lines, "seconds/human_wait") > 0
    assert lines[-1]["replay/held"] < 256


def test_no_label_is_lost_or_doubled_when_the_worker_that_passes_them_on_is_killed(
    tmp_path: Path, one_database_url: str
) -> None:
    with label_office(tmp_path / "labels", one_database_url) as office, one_ray(num_cpus=8):
        office.hire(CrowdConfig(num_people=3), upper_half)
        running = Running(human_run(tmp_path, office.url, runtime="ray", visibility_s=2))
        running.until(lambda _: heard(running, "ready") >= 4)
        running.kill("reward-human-0")
        running.until(lambda s: s["workers"]["reward-human-0"]["restarts"] == 1)
        running.until(lambda _: heard(running, "ready") >= 12)
        lines = stop(running)
        messages = states(office, RewardMessage)
        received = office.database.read_now(
            lambda session: session.scalars(select(RewardMessage.receive_count)).all()
        )
    assert messages["dead"] == 0
    # What the dead worker had taken comes again, also where its records were in the buffer already.
    repeated = sum(max(count - 1, 0) for count in received)
    assert lines[-1]["replay/late_records"] <= 4 * repeated
    # A group has one revision here, so what was drawn is at most what was said.
    trained = running.summary["surrogate_version"] * 2
    assert trained <= messages.total()


def test_a_run_that_is_killed_takes_no_label_along_and_the_next_gets_none_of_its(
    tmp_path: Path, one_database_url: str
) -> None:
    with label_office(tmp_path / "labels", one_database_url) as office:
        office.hire(CrowdConfig(num_people=3), upper_half)
        tree = human_run(tmp_path, office.url).model_dump(mode="json", exclude_unset=True)
        config = tmp_path / "killed.yaml"
        config.write_text(json.dumps(tree))
        command = [sys.executable, "-m", "services.cli", "train", str(config), "run.name=killed"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            killed = by_run(office, "killed")
            wait_until(lambda: next(killed)["acked"] >= 4)
            process.kill()
        wait_until(lambda: next(killed)["pending"] >= 1)  # people go on
        heard = next(killed)["acked"]
        running = Running(human_run(tmp_path, office.url), "next")
        running.until(lambda status: status.get("surrogate_version", 0) >= 2)
        lines = stop(running)
        office.send_home()
        left = next(killed)
        promised = sum(report.values.total() for report in office.reports)
        stored = office.database.read_now(
            lambda session: session.scalar(select(func.count()).select_from(Label))
        )
    assert stored == promised
    # What the dead run had not heard waits: nobody else takes it, and it is not given up.
    assert (left["acked"], left["dead"]) == (heard, 0)
    assert total(lines, "reward/human/foreign") == 0
    assert lines[-1]["replay/late_records"] == 0


def by_run(office: LabelOffice, name: str) -> Iterator[Counter[str]]:
    """States of the reward messages of runs of this name, now and each time asked."""
    query = select(RewardMessage.state).where(RewardMessage.run_id.startswith(name))
    while True:
        yield Counter(office.database.read_now(lambda session: session.scalars(query).all()))


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
