"""The replay worker: counts tell what may be drawn, versions age it, state goes out and in."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.config import TelemetryConfig
from services.replay.history import GroupHistory
from services.replay.worker import ReplayWorker
from services.rollout.worker import RolloutWorker
from services.run_store.forms import is_group_event
from tdm_core.types import ImageGroup, Prompt, RewardRecord, RolloutGroup
from tests.train_cases import reward, toy_run

pytestmark = pytest.mark.unit

CONFIG = toy_run(
    Path("runs"),
    algorithm={
        "num_groups": 2,
        "group_size": 3,
        "replay": {"max_staleness_generator": 1, "max_staleness_surrogate": 2},
    },
)


@pytest.fixture(scope="module")
def groups() -> list[RolloutGroup]:
    """Six groups by version 0."""
    prompts = [(group_id, Prompt(f"p:{group_id}", "label 1")) for group_id in range(6)]
    made, _ = RolloutWorker(CONFIG).generate(prompts)
    return made


def records(group: RolloutGroup | ImageGroup) -> list[RewardRecord]:
    """A reward for every sample."""
    values = [0.0, 1.0, 0.5]
    return [
        RewardRecord(group.group_id, sample, 0, "upper_half", "ready", value)
        for sample, value in enumerate(values)
    ]


def test_the_generator_may_draw_before_any_reward_and_the_surrogate_after(groups) -> None:
    worker = ReplayWorker(CONFIG)
    counts = worker.add(groups[:3])
    assert (counts["fresh"], counts["rewarded"], counts["added_version"]) == (3, 0, 0)
    assert worker.draw_rewarded(0) is None
    fresh = worker.draw_fresh(0)
    assert fresh is not None
    assert fresh.group_ids == (0, 1)
    assert worker.draw_fresh(0) is None
    counts = worker.attach_rewards([record for group in groups[:2] for record in records(group)])
    assert (counts["fresh"], counts["rewarded"]) == (1, 2)
    rewarded = worker.draw_rewarded(0)
    assert rewarded is not None
    assert rewarded.fresh.group_ids == (0, 1)
    assert rewarded.statistics["reward/upper_half/mean"] == 0.5


def told(worker: ReplayWorker) -> list[dict[str, Any]]:
    """What has happened, without times; each is a line that readers take."""
    events = json.loads(json.dumps(worker.drain_history(), allow_nan=False))
    assert all(is_group_event(event) for event in events)
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    return [{k: v for k, v in event.items() if k not in ("time", "latency_s")} for event in events]


def test_what_happens_to_groups_whose_images_are_stored_is_told(groups) -> None:
    worker = ReplayWorker(
        CONFIG.model_copy(update={"telemetry": TelemetryConfig(images_every=2)}), lambda: 0.0
    )
    worker.add(groups[:4])  # the second pair is not of an iteration whose images are stored
    assert told(worker) == [
        {"group_id": g, "event": "generated", "policy_version": 0, "by": 0} for g in (0, 1)
    ]
    failed = [
        replace(record, state="failed", value=None, reason="no face")
        for record in records(groups[1])
    ]
    worker.attach_rewards([*records(groups[0]), *failed, *records(groups[2])])
    judged = {"event": "judged", "policy_version": 0, "reward": "upper_half", "version": ""}
    assert told(worker) == [
        judged
        | {"group_id": 0, "revision": 0, "states": {"ready": 3}, "reason": ""}
        | {"values": [[0.0], [1.0], [0.5]]},
        judged
        | {"group_id": 1, "revision": 0, "states": {"failed": 3}, "reason": "no face"}
        | {"values": [[None]] * 3},
    ]
    worker.draw_fresh(1)
    batch = worker.draw_rewarded(1)
    assert batch is not None
    generator = [{"group_id": g, "event": "generator", "policy_version": 1} for g in (0, 1)]
    *drawn, first, second = told(worker)
    assert drawn == generator
    learned = batch.advantages_NK[:3].tolist()
    assert first["advantages"] == [[round(advantage, 6) for advantage in row] for row in learned]
    assert first["advantages"][0][0] < 0 < first["advantages"][1][0]
    assert first["rewards"] == {"upper_half": [[0.0] * 4, [1.0] * 4, [0.5] * 4]}
    assert (first["event"], first["revision"], first["weight"]) == ("surrogate", 1, 1.0)
    assert second["advantages"] == second["rewards"]["upper_half"] == [[None] * 4] * 3
    worker.counts(9)
    left = [{"group_id": g, "event": "left", "policy_version": 9} for g in (0, 1)]
    assert told(worker) == left
    assert told(worker) == []


def test_people_are_asked_and_answer_even_in_one_breath() -> None:
    history = GroupHistory(lambda group_id: True, ["human"], iter(range(9)).__next__)
    asked = [RewardRecord(3, i, 0, "human", "pending", None) for i in range(2)]
    answers = [
        RewardRecord(3, i, 0, "human", "ready", 0.75, parts={"n": 2.0, "rho": math.nan}, revision=1)
        for i in range(2)
    ]
    amended = [replace(record, value=0.5, revision=2) for record in answers]
    history.judged([*asked, *answers, *amended], {3: 5}.get)
    first, second, third = history.drain()
    assert (first["event"], second["event"]) == ("asked", "labelled")
    assert (second["states"], second["values"]) == ({"ready": 2}, [[0.75], [0.75]])
    assert (second["revision"], second["by"], second["parts"]) == (1, 5, [{"n": 2.0}] * 2)
    assert (third["revision"], third["values"]) == (2, [[0.5], [0.5]])


def test_labelled_groups_are_told_with_what_others_make_of_them_stored_or_not(groups) -> None:
    """Of group 1, which people labelled, and not of group 0, which they did not."""
    people = {"name": "human", "kind": "human", "options": {"url": "http://x"}}
    config = toy_run(
        Path("runs"),
        algorithm={
            "num_groups": 2,
            "group_size": 3,
            "replay": {"max_staleness_generator": 1, "max_staleness_surrogate": 2},
            "advantages": {"combination": "per_reward_advantage"},
        },
        rewards=[reward(), people],
        telemetry={"images_every": 0},
    )
    worker = ReplayWorker(config)
    worker.add(groups[:2])
    labels = [
        RewardRecord(1, i, 0, "human", "ready", mu, parts={"n": n, "likes": likes}, revision=1)
        for i, (mu, n, likes) in enumerate([(0.75, 1, 1), (0.5, 0, 0), (0.25, 1, 0)])
    ]
    for group in groups[:2]:
        worker.attach_rewards(records(group))
    worker.attach_rewards(labels)
    assert worker.draw_rewarded(1) is not None
    worker.note_surrogate({0: [9.0, 9.0, 9.0], 1: [0.25, -0.5, math.nan]})
    worker.note_surrogate({1: [7.0, 7.0, 7.0]})  # it has learned from them since
    labelled, compared = told(worker)
    assert (labelled["event"], labelled["group_id"], labelled["by"]) == ("labelled", 1, 0)
    assert labelled["values"] == [[0.75], [0.5], [0.25]]
    assert labelled["parts"][0] == {"n": 1, "likes": 1}
    assert (compared["event"], compared["group_id"]) == ("compared", 1)
    assert compared["values"] == [[0.25], [-0.5], [None]]
    assert compared["finals"] == {"upper_half": [0.0, 1.0, 0.5]}


def test_a_buffer_that_was_restored_tells_what_leaves_it(groups) -> None:
    worker, again = ReplayWorker(CONFIG), ReplayWorker(CONFIG)
    worker.add(groups[:2])
    again.load_state_dict(worker.state_dict())
    again.counts(9)
    assert [event["event"] for event in told(again)] == ["left", "left"]


def test_a_group_that_a_reward_has_lost_is_settled_without_a_value(groups) -> None:
    worker = ReplayWorker(CONFIG)
    worker.add(groups[:2])
    made, counts = worker.attach_missing(0, "upper_half", "failed", "its workers die of it")
    assert [(each.sample, each.state, each.value) for each in made] == [
        (sample, "failed", None) for sample in range(3)
    ]
    assert {each.reason for each in made} == {"its workers die of it"}
    assert counts["rewarded"] == 1
    worker.attach_rewards(records(groups[1]))
    rewarded = worker.draw_rewarded(0)
    assert rewarded is not None
    assert rewarded.valid_NK.any(1).tolist() == [False] * 3 + [True] * 3


def test_groups_age_with_the_newest_version_the_worker_was_told_of(groups) -> None:
    worker = ReplayWorker(CONFIG)
    worker.add(groups[:4])
    assert worker.counts(1)["fresh"] == 4
    worker.draw_fresh(1)
    assert worker.counts(1)["staleness_generator_max"] == 1
    assert {n: v for n, v in worker.counts(1).items() if n.startswith("staleness_generator/")} == {
        "staleness_generator/1": 2,
        "staleness_generator/sum": 2,
    }
    assert worker.counts(2)["fresh"] == 0
    assert worker.counts()["held"] == 4
    assert worker.counts(3)["held"] == 0


def test_staleness_at_a_draw_is_told_by_mean_ranks_and_maximum(groups) -> None:
    """The youngest two, of versions 1 and 0, at version 2: the median is the first of them."""
    worker = ReplayWorker(CONFIG)
    worker.add([*groups[:3], replace(groups[3], policy_version=1)])
    for group in groups[:4]:
        worker.attach_rewards(records(group))
    assert worker.draw_rewarded(2) is not None
    told = {
        name.removeprefix("staleness_surrogate_"): value
        for name, value in worker.counts(2).items()
        if name.startswith("staleness_surrogate_")
    }
    assert told == {"mean": 1.5, "p50": 1, "p95": 2, "max": 2}


def test_every_count_is_newer_than_the_one_before(groups) -> None:
    worker = ReplayWorker(CONFIG)
    changes = [worker.add(groups[:1])["change"], worker.counts()["change"]]
    changes.append(worker.attach_rewards(records(groups[0]))["change"])
    assert changes == sorted(set(changes))


def test_a_reward_that_answers_in_two_versions_is_counted(groups) -> None:
    worker = ReplayWorker(CONFIG)
    worker.add(groups[:2])
    told = records(groups[0])
    assert "versions/upper_half" not in worker.attach_rewards(told)
    failed = replace(told[0], state="failed", value=None, version="2")
    assert "versions/upper_half" not in worker.attach_rewards([failed])
    assert worker.attach_rewards([replace(told[0], version="2")])["versions/upper_half"] == 2
    assert worker.counts()["versions/upper_half"] == 2


def test_a_worker_goes_on_from_the_state_of_another(groups) -> None:
    first, second = ReplayWorker(CONFIG), ReplayWorker(CONFIG)
    first.add(groups)
    first.attach_rewards([record for group in groups for record in records(group)])
    first.draw_rewarded(0)
    first.draw_fresh(1)
    second.load_state_dict(first.state_dict())
    assert second.counts()["fresh"] == first.counts()["fresh"] == 4
    ours, theirs = first.draw_rewarded(1), second.draw_rewarded(1)
    assert ours is not None
    assert theirs is not None
    assert asdict(ours)["statistics"] == asdict(theirs)["statistics"]
    assert torch.equal(ours.advantages_NK, theirs.advantages_NK)
    assert torch.equal(ours.fresh.boundaries_NKCHW, theirs.fresh.boundaries_NKCHW)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def with_people(clock: Clock, **options: object) -> ReplayWorker:
    """A worker whose groups people judge, too."""
    url = {"url": "http://127.0.0.1:1", "max_open_groups": 8, "deadline_s": 100}
    people = {"name": "human", "kind": "human", "options": url | options}
    replay = {"max_staleness_generator": 1, "max_staleness_surrogate": 2}
    config = toy_run(
        Path("runs"),
        algorithm={
            "num_groups": 2,
            "group_size": 3,
            "replay": replay,
            "advantages": {"combination": "per_reward_advantage"},
        },
        rewards=[reward(), people],
    )
    return ReplayWorker(config, clock)


def labels(group: RolloutGroup, *mu: float) -> list[RewardRecord]:
    """People's verdict on every sample."""
    return [
        RewardRecord(group.group_id, sample, 0, "human", "ready", value, revision=1)
        for sample, value in enumerate(mu)
    ]


@pytest.mark.parametrize(("wait", "at_once"), [("never", 2), ("up_to_s", 0), ("block", 0)])
def test_a_group_waits_for_people_as_long_as_the_config_says(groups, wait, at_once) -> None:
    clock = Clock()
    worker = with_people(clock, wait=wait, wait_s=50)
    worker.add(groups[:2])
    counts = worker.attach_rewards([record for group in groups[:2] for record in records(group)])
    assert (counts["rewarded"], counts["pending"]) == (at_once, 2)
    clock.now = 49
    assert worker.counts()["rewarded"] == at_once
    clock.now = 50
    assert worker.counts()["rewarded"] == (0 if wait == "block" else 2)
    clock.now = 220  # the deadline and its grace: nobody will answer
    counts = worker.counts()
    assert (counts["rewarded"], counts["pending"]) == (2, 0)


def test_labels_make_a_new_revision_with_both_terms(groups) -> None:
    worker = with_people(Clock())
    worker.add(groups[:2])
    worker.attach_rewards([record for group in groups[:2] for record in records(group)])
    first = worker.draw_rewarded(0)
    assert first is not None
    assert "reward/human/mean" not in first.statistics
    assert first.group_weights == (1.0, 1.0)
    for group in groups[:2]:
        counts = worker.attach_rewards(labels(group, 0.1, 0.2, 0.9))
    assert (counts["labelled"], counts["pending"]) == (2, 0)
    second = worker.draw_rewarded(40)
    assert second is not None
    assert second.statistics["reward/human/mean"] == pytest.approx(0.4)
    assert second.group_weights == (2 ** (-40 / 64),) * 2
    assert worker.counts()["label_weight"] == pytest.approx(2 ** (-40 / 64))
    # The automatic term stays as it was; the human one is added to it.
    assert not torch.equal(first.advantages_NK, second.advantages_NK)
    assert worker.draw_rewarded(40) is None


def test_a_small_difference_of_opinion_is_not_blown_up(groups) -> None:
    worker = with_people(Clock())
    worker.add(groups[:2])
    for group in groups[:2]:
        failed = [replace(r, state="failed", value=None) for r in records(group)]
        worker.attach_rewards(failed + labels(group, 0.50, 0.50, 0.53))
    batch = worker.draw_rewarded(0)
    assert batch is not None
    assert batch.advantages_NK[2, 0].item() == pytest.approx(0.02 / 0.1)


def test_what_people_said_and_who_waits_goes_out_and_in(groups) -> None:
    first = with_people(Clock(), wait="block")
    first.add(groups[:3])
    first.attach_rewards([record for group in groups[:3] for record in records(group)])
    first.attach_rewards(labels(groups[0], 0.1, 0.2, 0.9))
    second = with_people(Clock(), wait="block")
    second.load_state_dict(first.state_dict())
    assert second.pending() == first.pending() == [1, 2]
    assert second.counts()["rewarded"] == 1


def test_a_state_tells_which_labels_the_surrogate_has_learned_from(groups) -> None:
    worker = with_people(Clock())
    worker.add(groups[:4])
    worker.attach_rewards([record for group in groups[:4] for record in records(group)])

    def say(group: RolloutGroup, newest: int) -> None:
        parts = {"n": 2.0, "rho": 0.5, "label_seq": float(newest)}
        worker.attach_rewards([replace(r, parts=parts) for r in labels(group, 0.1, 0.2, 0.9)])

    def learned(of: ReplayWorker) -> dict[str, Any]:
        return of.state_dict()["facts"]["labels"]

    say(groups[0], 40)
    say(groups[1], 31)
    heard = learned(worker)
    assert (heard["answers"], heard["votes"], heard["newest_label"]) == (0, 0, None)
    restored = with_people(Clock())
    restored.load_state_dict(worker.state_dict())
    drawn = {"answers": 2, "votes": 12, "newest_label": 40, "waiting": []}
    for each in (worker, restored):
        assert [each.draw_rewarded(0) is None for _ in range(3)] == [False, False, True]
        assert learned(each) == drawn
    say(groups[2], 99)
    assert learned(worker)["waiting"] == [[groups[2].group_id, 6, 99]]
    worker.counts()
    assert learned(worker)["waiting"]  # the buffer has it
    worker.labels.kept(lambda group_id: False)
    assert learned(worker) == drawn
