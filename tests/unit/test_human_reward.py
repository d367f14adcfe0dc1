"""The human reward's worker: what it sends, what it makes of answers, and faults on the way."""

import hashlib
import io
import logging
import time
from concurrent.futures import wait

import numpy as np
import pytest
import torch
from PIL import Image

from services.config import RewardConfig
from services.reward.human import HumanRewardWorker, check_service, label_client
from services.reward.label_calls import LabelCalls
from services.reward.worker import RewardError
from tdm_core.types import ImageGroup, Prompt, RewardRecord
from tests.label_service_fake import FakeLabelService

pytestmark = pytest.mark.unit

SIZE = 2
MU = (0.25, 0.75)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def human(on_failure="drop_sample", **options) -> RewardConfig:
    options = {"url": "http://labels", "deadline_s": 100} | options
    return RewardConfig(name="human", kind="human", on_failure=on_failure, options=options)


def worker(
    service, clock=None, on_failure="drop_sample", call_s=5.0, **options
) -> HumanRewardWorker:
    settings = human(on_failure, **options)
    client = service.client()
    return HumanRewardWorker(
        settings, service.run_id, SIZE, {"nfe": 4}, client, clock or Clock(), call_s
    )


def send(asked: HumanRewardWorker, *groups: ImageGroup, version: int = 0):
    """Records and numbers of the call that sends these."""
    asked.offer(groups)
    records, numbers, _ = asked.collect(version)
    return records, numbers


def group(group_id: int, version: int = 0) -> ImageGroup:
    images = torch.arange(SIZE * 3 * 4 * 4).reshape(SIZE, 1, 3, 4, 4) + group_id
    return ImageGroup(group_id, Prompt("p", "a circle"), version, images.to(torch.uint8))


def told(records: list[RewardRecord]) -> list[tuple[int, int, str, float | None]]:
    return [(r.group_id, r.sample, r.state, r.value) for r in records]


def both(group_id: int, state: str) -> list[tuple[int, int, str, None]]:
    return [(group_id, i, state, None) for i in range(SIZE)]


def test_a_group_is_sent_whole_and_its_images_without_loss():
    service = FakeLabelService()
    asked = worker(service, overlap=2, priority=3)
    assert asked.offer([group(7, version=5)], [RewardRecord(7, 0, 0, "r", "ready", 0.5)]) == 1
    records, numbers, _ = asked.collect(5)
    assert told(records) == both(7, "pending")
    assert (numbers["sent"], numbers["open"]) == (1, 1)
    body = service.groups["run-7"]
    assert body["prompt"] == {"id": "p", "text": "a circle"}
    assert body["auto_rewards"] == {"r": [0.5, None]}
    assert (body["policy_version"], body["overlap"], body["priority"]) == (5, 2, 3)
    assert (body["question_id"], body["sampler"]) == ("like", {"nfe": 4})
    for row, image in enumerate(body["images"]):
        content = service.images[image["sha256"]]
        assert hashlib.sha256(content).hexdigest() == image["sha256"]
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        expected = group(7).images_GS3HW[row, 0].permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, expected)


def test_a_ready_message_is_a_posterior_mean_an_image():
    service, clock = FakeLabelService(), Clock()
    asked = worker(service, clock)
    send(asked, group(0))
    message = service.say(0, *MU)
    message["label_seq"] = 12
    del message["images"][1]["likes"]  # as services of old say it
    clock.now = 30.0
    records, numbers, receipts = asked.collect(3)
    assert told(records) == [(0, 0, "ready", 0.25), (0, 1, "ready", 0.75)]
    parts = {"n": 1.0, "rho": pytest.approx(1 / 3), "likes": 0.5, "label_seq": 12}
    assert records[0].parts == parts
    assert "likes" not in records[1].parts
    assert (records[0].revision, records[0].latency_s, records[0].slot) == (1, 30.0, 0)
    assert numbers == {
        "ready": 1,
        "revised": 0,
        "votes": 2,
        "latency_s": 30,
        "staleness": 3,
        "open": 0,
        "candidates": 0,
    }
    assert receipts == ["r0"]


def test_nothing_is_acknowledged_before_it_is_told_to_be_safe():
    service = FakeLabelService()
    asked = worker(service)
    service.say(0, *MU)
    first, _, receipts = asked.collect(0)
    again, _, _ = asked.collect(0)
    assert told(first) == told(again)
    assert service.acked == []
    assert asked.acknowledge(receipts) == 1
    assert asked.acknowledge([]) == 0
    assert asked.collect(0)[0] == []


@pytest.mark.parametrize("mu", [None, float("inf")])
def test_a_message_without_a_number_is_a_failure_and_never_a_zero(mu):
    service = FakeLabelService()
    message = service.say(0, 0.5, 0.5)
    message["images"][1]["mu"] = None if mu is None else "Infinity"
    records, _, _ = worker(service).collect(0)
    assert told(records) == [(0, 0, "ready", 0.5), (0, 1, "failed", None)]


def test_an_expired_message_ends_the_waiting():
    service = FakeLabelService()
    service.say(4, None, None, revision=2, state="expired")
    records, numbers, receipts = worker(service).collect(0)
    assert told(records) == both(4, "expired")
    assert records[0].revision == 2
    assert (numbers["expired"], receipts) == (1, ["r0"])


def test_a_later_revision_is_passed_on_with_its_number():
    service = FakeLabelService()
    service.say(0, *MU)
    service.say(0, 0.5, 0.9, revision=2)
    records, numbers, _ = worker(service).collect(0)
    assert [record.revision for record in records] == [1, 1, 2, 2]
    assert numbers["revised"] == 1


def test_groups_that_are_not_chosen_end_without_a_label():
    service = FakeLabelService()
    asked = worker(service, max_open_groups=1, max_candidate_age=0)
    assert told(send(asked, group(0), group(1))[0]) == both(0, "pending")
    records, numbers, _ = asked.collect(1)
    assert told(records) == both(1, "expired")
    assert numbers["declined"] == 1
    assert records[0].reason == "people were not asked"


def test_a_place_that_becomes_free_is_filled():
    service = FakeLabelService()
    asked = worker(service, max_open_groups=1)
    send(asked, group(0), group(1))
    service.say(0, *MU)
    asked.collect(0)
    assert sorted(service.groups) == ["run-0"]
    asked.collect(0)
    assert sorted(service.groups) == ["run-0", "run-1"]


@pytest.mark.parametrize("name", ["extra", "7-a", "-7", "\u0667", "07 "])
def test_a_foreign_group_under_the_runs_name_is_given_back_and_ends_nothing(name, caplog):
    service = FakeLabelService()
    asked = worker(service)
    send(asked, group(7))
    foreign, ours = service.say(name, *MU), service.say(7, *MU)
    records, numbers, receipts = asked.collect(0)
    assert told(records) == [(7, 0, "ready", 0.25), (7, 1, "ready", 0.75)]
    assert receipts == [ours["receipt"]]
    assert service.nacked == [foreign["receipt"]]
    assert numbers["foreign"] == 1
    assert "not groups of this run" in caplog.text


def test_a_message_with_more_images_than_a_group_has_is_given_back():
    service = FakeLabelService()
    asked = worker(service)
    send(asked, group(7))
    service.say(7, 0.1, 0.2, 0.3)
    records, _, receipts = asked.collect(0)
    assert (records, receipts) == ([], [])
    assert service.nacked == ["r0"]


def test_people_who_never_answer_are_waited_for_no_longer_than_the_deadline():
    service, clock = FakeLabelService(), Clock()
    asked = worker(service, clock)
    send(asked, group(0))
    clock.now = 159.0
    assert asked.collect(0)[0] == []
    clock.now = 160.0
    records, numbers, _ = asked.collect(0)
    assert told(records) == both(0, "expired")
    assert (numbers["expired"], numbers["open"]) == (1, 0)


def test_a_service_that_is_away_costs_labels_and_never_the_run(caplog):
    service, clock = FakeLabelService(), Clock()
    service.away = True
    asked = worker(service, clock)
    with caplog.at_level(logging.WARNING):
        records, numbers = send(asked, group(0))
        assert (records, numbers["unreachable"], numbers["candidates"]) == ([], 1, 1)
        assert asked.collect(0)[0] == []
        assert asked.acknowledge(["r0"]) == 0
    assert "nobody is there" in caplog.text
    service.away = False
    assert asked.collect(0)[0] == []  # it rests first
    clock.now = 11.0
    records, numbers, _ = asked.collect(0)
    assert told(records) == both(0, "pending")


def test_a_busy_service_is_tried_again_later():
    service, clock = FakeLabelService(), Clock()
    service.refusal = (503, "store-unavailable")
    asked = worker(service, clock)
    records, numbers = send(asked, group(0))
    assert (records, numbers["candidates"]) == ([], 1)


@pytest.mark.parametrize(("on_failure", "stops"), [("drop_group", False), ("stop_run", True)])
def test_a_refused_group_is_a_failure_or_the_end_as_configured(on_failure, stops):
    service = FakeLabelService()
    service.refusal = (422, "question-unknown")
    asked = worker(service, on_failure=on_failure)
    if stops:
        with pytest.raises(RewardError, match="question-unknown"):
            send(asked, group(0))
        return
    records, numbers = send(asked, group(0))
    assert told(records) == both(0, "failed")
    assert "question-unknown" in records[0].reason
    assert numbers["failed"] == 1


def test_a_group_that_an_earlier_worker_had_sent_is_simply_open():
    service = FakeLabelService()
    send(worker(service), group(0))
    records, numbers = send(worker(service), group(0))
    assert told(records) == both(0, "pending")
    assert numbers["open"] == 1


def test_after_a_restart_the_service_is_asked_what_became_of_each_group():
    service, clock = FakeLabelService(), Clock()
    images = [{"image_id": f"i{i}", "index": i, "mu": mu} for i, mu in enumerate(MU)]
    for group_id, state in ((0, "consumed"), (1, "open"), (2, "expired")):
        service.aggregates[f"run-{group_id}"] = {
            "state": state,
            "reward_revision": 3,
            "images": images,
        }
    asked = worker(service, clock)
    assert asked.adopt([0, 1, 2, 3]) == 4
    records, numbers, _ = asked.collect(0)
    ready = [(0, 0, "ready", 0.25), (0, 1, "ready", 0.75)]
    assert told(records) == ready + both(2, "expired") + both(3, "expired")
    assert records[0].revision == 3
    assert (numbers["looked_up"], numbers["open"]) == (4, 1)
    assert asked.collect(0)[0] == []


def test_after_a_restart_an_answer_in_the_queue_is_heard_once():
    service, clock = FakeLabelService(), Clock()
    for group_id in (0, 1):
        service.aggregates[f"run-{group_id}"] = {"state": "ready"}
    service.say(0, *MU)  # and the other's is in the hands of the worker that died
    asked = worker(service, clock)
    asked.adopt([0, 1])
    records, numbers, receipts = asked.collect(0)
    assert told(records) == [(0, 0, "ready", 0.25), (0, 1, "ready", 0.75)]
    assert (numbers["looked_up"], numbers["open"]) == (1, 1)
    asked.acknowledge(receipts)
    service.say(1, *MU)
    assert told(asked.collect(0)[0]) == [(1, 0, "ready", 0.25), (1, 1, "ready", 0.75)]


@pytest.mark.parametrize("offered_first", [True, False])
def test_a_group_that_comes_again_after_a_restart_is_asked_about(offered_first):
    service = FakeLabelService()
    asked = worker(service, max_open_groups=1)
    steps = [lambda: asked.offer([group(0), group(1)]), lambda: asked.adopt([0, 1, 2])]
    for step in steps if offered_first else reversed(steps):
        step()
    first = told(asked.collect(0)[0])
    assert first == both(0, "pending") + both(2, "expired")  # and 1 waits to be chosen
    service.say(0, *MU)
    asked.collect(0)
    assert told(asked.collect(0)[0])[:2] == both(1, "pending")


def test_a_group_that_comes_again_too_late_after_a_restart_is_let_go():
    service = FakeLabelService()
    asked = worker(service)
    asked.adopt([0])
    assert told(asked.collect(0)[0]) == both(0, "expired")
    assert asked.offer([group(0), group(1)]) == 1
    assert told(asked.collect(0)[0]) == both(1, "pending")


def test_what_cannot_be_asked_yet_is_asked_later():
    service, clock = FakeLabelService(), Clock()
    service.away = True
    asked = worker(service, clock)
    asked.adopt([3])
    asked.collect(0)
    service.away, clock.now = False, 20.0
    assert told(asked.collect(0)[0]) == both(3, "expired")


# A service that hangs


def until_all(asked: HumanRewardWorker, *wanted: tuple) -> list[tuple]:
    """What later calls bring, until it is all that is wanted."""
    found = []
    until = time.monotonic() + 10
    while not set(wanted) <= set(found) and time.monotonic() < until:
        found += told(asked.collect(0)[0])
    return found


@pytest.mark.parametrize("stuck", ["/images", "/groups", "/reward-queue:receive", "/aggregates"])
def test_a_service_that_hangs_holds_up_no_call_and_what_it_does_late_is_heard(stuck):
    service = FakeLabelService()
    service.stuck = stuck
    asked = worker(service, time.monotonic, call_s=0.1)
    asked.offer([group(7)])
    asked.adopt([8])
    service.say(9, *MU)
    began = time.monotonic()
    found = [row for _ in range(3) for row in told(asked.collect(0)[0])]
    assert asked.adopt([7]) == 0
    assert time.monotonic() - began < 4
    service.released.set()
    wanted = both(7, "pending") + both(8, "expired") + [(9, 0, "ready", 0.25)]
    found += until_all(asked, *set(wanted) - set(found))
    assert set(wanted) <= set(found)
    assert [row for row in found if row[0] in (7, 8)] in (wanted[:4], wanted[2:4] + wanted[:2])
    assert len(service.groups) == 1
    asked.close()


def test_an_acknowledgement_that_hangs_is_made_behind_its_caller(caplog):
    service = FakeLabelService()
    service.stuck = "/reward-queue:ack"
    asked = worker(service, call_s=0.1)
    service.say(0, *MU)
    receipts = asked.collect(0)[2]
    began = time.monotonic()
    assert asked.acknowledge(receipts) == 0
    assert time.monotonic() - began < 4
    assert "no answer within 0.1 s" in caplog.text
    service.released.set()
    until = time.monotonic() + 10
    while service.acked != receipts and time.monotonic() < until:
        time.sleep(0.01)
    assert service.acked == receipts


def test_who_closes_waits_for_no_pause_between_attempts():
    service = FakeLabelService()
    service.refusal = (503, "busy")
    calls = LabelCalls(lambda pause: service.client(retries=1, backoff_s=60, sleep=pause))
    listened = calls.listen("run", 60, lambda _: True, {})
    calls.close()
    assert wait([listened], 5).done


# Before the run


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ValueError, match="MY_KEY is not set"):
        label_client(human(key_env="MY_KEY"))


def test_a_service_that_answers_is_fine():
    check_service(human(), FakeLabelService().client())


@pytest.mark.parametrize(
    ("fault", "named"),
    [("away", "cannot be reached"), ("key", "refuses the key"), ("question", "no question 'nice'")],
)
def test_a_service_that_will_not_do_is_told_before_the_run(fault, named):
    service = FakeLabelService()
    service.away = fault == "away"
    service.refusal = (401, "unauthorized") if fault == "key" else None
    with pytest.raises(ValueError, match=named):
        check_service(human(question="nice"), service.client())


def test_a_closed_question_is_told_before_the_run():
    with pytest.raises(ValueError, match="'old' is closed"):
        check_service(human(question="old"), FakeLabelService().client())
