"""Every (sample, slot) gets exactly one record, whatever the reward does."""

import time
from typing import Any

import pytest
import reward_fakes
import torch

from services.config import RewardConfig
from services.reward.worker import MAX_HUNG_THREADS, RewardError, RewardWorker, check_requirements
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.unit


def settings(name: str, **changes) -> RewardConfig:
    return RewardConfig(name="r", kind=f"python:reward_fakes:{name}", **changes)


def worker(name: str, **changes) -> RewardWorker:
    return RewardWorker(settings(name, backoff_s=0.001, **changes))


def group(group_id: int, rows: list[list[int]], size: int = 4) -> ImageGroup:
    """A group of plain grey images: one row of bytes a sample, one byte a slot."""
    images = torch.tensor(rows, dtype=torch.uint8)[:, :, None, None, None]
    return ImageGroup(group_id, Prompt("p:1", "x"), 0, images.expand(-1, -1, 3, size, size))


def reward_of(used: RewardWorker) -> Any:
    return used._reward


def values(records) -> list[float | None]:
    return [record.value for record in records]


def test_every_sample_and_slot_has_one_record_in_the_order_given():
    records = worker("Brightness").evaluate([group(9, [[1, 2], [3, 4]]), group(2, [[5, 6]], 6)])
    assert [(r.group_id, r.sample, r.slot, r.value) for r in records] == [
        (9, 0, 0, 1.0),
        (9, 0, 1, 2.0),
        (9, 1, 0, 3.0),
        (9, 1, 1, 4.0),
        (2, 0, 0, 5.0),
        (2, 0, 1, 6.0),
    ]
    assert {(r.reward, r.state, r.version) for r in records} == {("r", "ready", "7")}


def test_no_groups_have_no_records():
    assert worker("Brightness").evaluate([]) == []


def test_batches_cross_groups_and_keep_to_the_batch_size():
    used = worker("Brightness", batch_size=3)
    used.evaluate([group(0, [[1], [2]]), group(1, [[3], [4]]), group(2, [[5], [6], [7]])])
    assert reward_of(used).batches == [3, 3, 1]


def test_an_answer_that_is_no_finite_number_is_failed_and_the_others_stand():
    records = worker("Odd").evaluate([group(0, [[i] for i in range(8)])])
    assert values(records) == [0.5, None, None, None, None, 0.25, None, 1.0]
    assert [r.state for r in records] == ["ready", *["failed"] * 4, "ready", "failed", "ready"]
    assert "nan" in records[1].reason
    assert "'good', a str" in records[4].reason
    assert records[6].reason == "it is blank"


def test_numbers_of_numpy_and_torch_are_numbers_and_odd_parts_are_left_out():
    records = worker("Odd").evaluate([group(0, [[8], [9], [10], [11]])])
    assert values(records) == [0.5, 0.5, None, 1.0]
    assert type(records[1].value) is float
    assert "a Tensor; a number is allowed" in records[2].reason
    assert (records[3].parts, records[3].reason) == ({"tensor": 2.0}, "")


def test_numbers_without_a_float_odd_parts_and_half_characters_cost_no_more_than_themselves():
    huge, odd, half = worker("Odd").evaluate([group(0, [[12], [13], [14]])])
    assert (huge.state, huge.reason) == (
        "failed",
        "the reward gave -inf; a finite number is allowed",
    )
    assert (odd.value, odd.parts) == (1.0, {})
    assert (half.value, half.parts, half.reason) == (1.0, {"?": 2.0}, "half ?")
    assert half.version == "7:v?"


def test_parts_are_judged_in_one_batch_and_answered_by_themselves():
    used = worker("Brightness", batch_size=8)
    parts = [[group(7, [[1], [2]])], [group(3, [[3], [4]]), group(5, [[5], [6]])]]
    counts, first, second = used.judge(*parts)
    assert counts == {"images": 6, "evaluations": 1}
    assert [(r.group_id, r.value) for r in first] == [(7, 1.0), (7, 2.0)]
    assert [(r.group_id, r.value) for r in second] == [(3, 3.0), (3, 4.0), (5, 5.0), (5, 6.0)]
    assert reward_of(used).batches == [6]


def test_what_got_no_value_is_counted_by_its_reason_for_each_batch_anew():
    used = worker("Picky", batch_size=1, retries=1, on_failure="drop_group")
    counts, _ = used.judge([group(0, [[1], [13], [2]])])
    assert counts == {
        "images": 3,
        "evaluations": 3,
        "retried": 1,
        "failed/RuntimeError": 1,
        "failed/group": 2,
    }
    assert used.judge([group(1, [[1]])])[0] == {"images": 1, "evaluations": 1}
    counts, _ = worker("Odd").judge([group(0, [[0], [1], [3]])])
    assert counts["failed/no_value"] == 2


def test_an_evaluation_that_hangs_is_counted_as_past_its_deadline():
    reward_fakes.release.clear()
    counts, _ = worker("Hanging", deadline_s=0.05).judge([group(0, [[13], [4]])])
    reward_fakes.release.set()
    assert counts == {"images": 2, "evaluations": 1, "expired/deadline": 2}


def test_parts_and_reason_reach_the_record_without_what_json_cannot_hold():
    (record,) = worker("Odd").evaluate([group(0, [[5]])])
    assert (record.parts, record.reason) == ({"a": 1.0}, "because")


def test_a_reward_that_fails_twice_is_tried_a_third_time():
    records = worker("Flaky", retries=2, options={"faults": 2}).evaluate([group(0, [[4]])])
    assert values(records) == [4.0]


def test_a_reward_that_fails_more_often_than_the_retries_leaves_failed_records():
    records = worker("Flaky", retries=1, options={"faults": 2}).evaluate([group(0, [[4], [5]])])
    assert [r.state for r in records] == ["failed", "failed"]
    assert records[0].reason == "OSError: the judge is away"
    assert records[0].version == "7"


def test_only_the_batch_that_raises_is_lost():
    groups = [group(0, [[1], [13], [2]]), group(1, [[3]])]
    records = worker("Picky", batch_size=2, retries=0).evaluate(groups)
    assert values(records) == [None, None, 2.0, 3.0]


def test_drop_group_takes_the_whole_group_and_says_why():
    groups = [group(0, [[1], [13], [2]]), group(1, [[3]])]
    used = worker("Picky", batch_size=1, retries=0, on_failure="drop_group")
    records = used.evaluate(groups)
    assert values(records) == [None, None, None, 3.0]
    assert records[0].reason == "group dropped: sample 1 failed: RuntimeError: thirteen"
    assert records[1].reason == "RuntimeError: thirteen"


def test_stop_run_raises_with_the_rewards_own_traceback():
    used = worker("Picky", retries=0, on_failure="stop_run")
    with pytest.raises(RewardError, match="on_failure is stop_run: RuntimeError: thirteen") as info:
        used.evaluate([group(0, [[13]])])
    cause = info.value.__cause__
    assert isinstance(cause, RuntimeError)
    frames = []
    trace = cause.__traceback__
    while trace:
        frames.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    assert frames[-1].endswith("reward_fakes.py")


def test_stop_run_stops_at_a_nan_too():
    with pytest.raises(RewardError, match="nan"):
        worker("Odd", on_failure="stop_run").evaluate([group(0, [[1]])])


def test_a_reward_that_hangs_is_expired_at_the_deadline_and_the_next_batch_is_judged():
    reward_fakes.release.clear()
    used = worker("Hanging", deadline_s=0.2, batch_size=1)
    started = time.monotonic()
    records = used.evaluate([group(0, [[13], [4]])])
    assert time.monotonic() - started < 2
    reward_fakes.release.set()
    assert [r.state for r in records] == ["expired", "ready"]
    assert records[0].reason == "no answer within deadline_s=0.2"
    assert records[0].latency_s >= 0.2


def test_a_batch_at_which_every_call_raised_is_told_from_one_with_some_answer():
    quitting, _ = worker("Quitting").judge([group(0, [[1]])])
    assert quitting["raised"].startswith("SystemExit")
    picky, _ = worker("Picky", batch_size=1).judge([group(0, [[13], [4]])])
    assert (picky["failed/RuntimeError"], "raised" in picky) == (1, False)
    no_value, _ = worker("Odd").judge([group(0, [[1]])])
    assert "raised" not in no_value


def test_a_reward_that_always_hangs_does_not_pile_up_threads():
    reward_fakes.release.clear()
    used = worker("Hanging", deadline_s=0.02, batch_size=1)
    report, records = used.judge([group(0, [[13]] * (MAX_HUNG_THREADS + 2))])
    reward_fakes.release.set()
    assert {r.state for r in records} == {"expired"}
    assert f"{MAX_HUNG_THREADS} calls of the reward still hang" in records[-1].reason
    assert "raise deadline_s" in report["unfit"]


def test_a_worker_is_fit_again_once_its_hung_calls_have_ended():
    reward_fakes.release.clear()
    used = worker("Hanging", deadline_s=0.02, batch_size=1)
    used.judge([group(0, [[13]] * MAX_HUNG_THREADS)])
    reward_fakes.release.set()
    for thread in list(used._hung):
        thread.join()
    report, _ = used.judge([group(1, [[4]])])
    assert report == {"images": 1, "evaluations": 1}


def test_a_reward_that_quits_is_failed_not_the_end_of_the_process():
    (record,) = worker("Quitting", retries=0).evaluate([group(0, [[1]])])
    assert record.reason == "SystemExit: 3"


def test_too_few_answers_are_a_failure_of_the_batch():
    records = worker("Short", retries=0).evaluate([group(0, [[1], [2]])])
    assert {r.state for r in records} == {"failed"}
    assert "[1] answers for [2] images" in records[0].reason


def test_a_groupwise_reward_sees_whole_groups_a_slot_at_a_time():
    groups = [group(0, [[9, 1], [3, 2], [5, 3]]), group(1, [[2, 8], [1, 9]])]
    records = worker("Ranks", batch_size=4).evaluate(groups)
    assert values(records) == [2, 0, 0, 1, 1, 2, 1, 0, 0, 1]


def test_a_retry_does_not_begin_past_the_deadline():
    used = RewardWorker(settings("Flaky", retries=9, options={"faults": 9}, deadline_s=0.1))
    started = time.monotonic()
    (record,) = used.evaluate([group(0, [[1]])])
    assert time.monotonic() - started < 0.1
    assert record.state == "failed"


def test_a_reward_is_prepared_where_it_works_once_for_each_instance():
    used = worker("Prepared", deadline_s=0.2, batch_size=1)
    assert reward_of(used).prepared == 1
    reward_fakes.release.clear()
    records = used.evaluate([group(0, [[13], [4]])])
    reward_fakes.release.set()
    assert [r.state for r in records] == ["expired", "ready"]
    assert reward_of(used).prepared == 1


def test_a_reward_that_loads_longer_than_its_deadline_judges_again_after_a_hang():
    reward_fakes.release.clear()
    used = worker("SlowlyPrepared", deadline_s=0.1, batch_size=1)
    records = used.evaluate([group(0, [[13], [4], [5]])])
    reward_fakes.release.set()
    assert [r.state for r in records] == ["expired", "ready", "ready"]


def test_loading_again_has_a_deadline_too():
    reward_fakes.release.clear()
    used = worker("SlowlyPrepared", deadline_s=0.1, load_deadline_s=0.05, batch_size=1)
    report, records = used.judge([group(0, [[13], [4]])])
    reward_fakes.release.set()
    assert report["expired/loading"] == 1
    assert records[1].reason == "not loaded again within load_deadline_s=0.05"


def test_a_reward_that_cannot_be_prepared_ends_its_worker_saying_why():
    with pytest.raises(
        ValueError, match=r"'r' .*cannot work here: No module named 'no_such_engine'"
    ):
        worker("Unprepared")


def test_latency_is_that_of_the_batch():
    (record,) = worker("Slow").evaluate([group(0, [[1]])])
    assert 0.05 <= record.latency_s < 1


def test_a_prompt_without_the_metadata_that_a_reward_reads_stops_before_the_run():
    with pytest.raises(ValueError, match=r"'r' .* cannot judge the prompt f:3 'a dog': it has no"):
        check_requirements(settings("NeedsMetadata"), [Prompt("f:3", "a dog")])


def test_a_reward_may_check_prompts_itself():
    fine = Prompt("f:1", "a dog", {"colour": "red"})
    check_requirements(settings("NeedsMetadata"), [fine])
    with pytest.raises(ValueError, match=r'f:2 .* has no "colour"'):
        check_requirements(settings("NeedsMetadata"), [fine, Prompt("f:2", "a cat", {"a": 1})])
