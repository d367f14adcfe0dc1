"""The judge against a real HTTP server that behaves, or does not: each image ends in a state."""

import json
import math
import re
import socket
import time

import pytest
import torch

from services.config import RewardConfig
from services.reward.worker import RewardWorker
from tdm_core.types import ImageGroup, Prompt
from tests.integration.scripted_server import (
    Handler,
    broken,
    closing,
    deep_junk,
    dripping,
    echoing_the_key,
    endless,
    hanging,
    junk,
    limited,
    limited_for_an_hour,
    redirecting,
    serving,
)

pytestmark = pytest.mark.integration


def said(text: str) -> bytes:
    """A completion that is this text and no probabilities."""
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def completion() -> bytes:
    """A completion whose p(yes) is 0.8 and p(no) 0.1."""
    words = [("Yes", math.log(0.8)), ("No", math.log(0.1))]
    options = [{"token": token, "logprob": logprob} for token, logprob in words]
    content = [{"token": "Yes", "logprob": -0.2, "top_logprobs": options}]
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": content}}
    return json.dumps({"choices": [choice]}).encode()


def fine(handler: Handler) -> None:
    handler.answer(200, completion())


def scoring(handler: Handler) -> None:
    handler.answer(200, said('{"reason": "five fingers", "score": 8}'))


def babbling(handler: Handler) -> None:
    handler.answer(200, said("I would give it an 8."))


def either(handler: Handler) -> None:
    """As a server with guided decoding: a score where a schema is sent, else a yes."""
    (scoring if "response_format" in handler.server.requests[-1][2] else fine)(handler)


def slow(handler: Handler) -> None:
    time.sleep(0.15)
    handler.answer(200, completion())


@pytest.fixture
def judge():
    """A judge on a free port of this machine; tests set its script."""
    with serving(fine) as server:
        yield server


IMPATIENT = {"timeout_s": 0.3, "budget_s": 5}


def worker(port: int, **options) -> RewardWorker:
    defaults = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "m", "backoff_s": 0.01}
    config = RewardConfig(
        name="vlm",
        kind="vlm_judge",
        options={**defaults, "timeout_s": 10, "budget_s": 20, **options},
        deadline_s=25,
    )
    return RewardWorker(config)


def group(count: int = 1, text: str = "a dog") -> ImageGroup:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None, None]
    return ImageGroup(0, Prompt("p:1", text), 0, images.expand(-1, 1, 3, 8, 8).contiguous())


def test_the_judge_is_asked_as_configured_and_its_probability_is_the_reward(judge):
    used = worker(judge.server_port, question="Is it {prompt}?", seed=5, extra_body={"top_p": 1})
    (record,) = used.evaluate([group(text="a {red} dog")])
    assert record.value == pytest.approx(0.8 / 0.9)
    assert record.parts == pytest.approx({"p_yes": 0.8, "p_no": 0.1})
    path, _, body = judge.requests[0]
    assert path == "/v1/chat/completions"
    picture, question = body.pop("messages")[0]["content"]
    text = "Is it a {red} dog? Answer with yes or no only."
    assert question == {"type": "text", "text": text}
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    fixed = {"temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 20}
    assert body == {"model": "m", "seed": 5, "top_p": 1, **fixed}


def test_a_score_is_asked_for_by_schema_and_its_place_in_the_range_is_the_reward(judge):
    judge.script = [scoring]
    used = worker(judge.server_port, mode="score", question="How good?", scale={"lowest": 2})
    (record,) = used.evaluate([group()])
    assert (record.value, record.parts) == (0.75, {"score": 8})
    assert record.reason == "five fingers"
    body = judge.requests[0][2]
    text = body["messages"][0]["content"][1]["text"]
    assert text.startswith("How good? Answer in JSON")
    assert text.endswith("from 2 to 10.")
    form = body["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    score = form["json_schema"]["schema"]["properties"]["score"]
    assert score == {"type": "integer", "minimum": 2, "maximum": 10}
    assert "logprobs" not in body


def test_a_judge_that_ignores_the_schema_is_failed_and_not_asked_again(judge):
    judge.script = [babbling]
    (record,) = worker(judge.server_port, mode="score").evaluate([group()])
    assert record.state == "failed"
    assert record.reason == "answered 'I would give it an 8.', which is no JSON"
    assert len(judge.requests) == 1


RUBRIC = [
    {"name": "hands", "question": "Are the hands of {prompt} fine?", "weight": 3},
    {"name": "light", "question": "How good is the light?", "mode": "score"},
]


def test_a_rubric_asks_every_criterion_once_and_records_its_parts(judge):
    judge.script = [either]
    used = worker(judge.server_port, mode="rubric", rubric=RUBRIC, max_concurrency=1)
    (record,) = used.evaluate([group()])
    assert record.value == pytest.approx((3 * 0.8 / 0.9 + 0.8) / 4)
    assert record.parts == pytest.approx({"hands": 0.8 / 0.9, "light": 0.8})
    texts = [body["messages"][0]["content"][1]["text"] for _, _, body in judge.requests]
    assert texts[0] == "Are the hands of a dog fine? Answer with yes or no only."
    assert [bool("response_format" in body) for _, _, body in judge.requests] == [False, True]


def test_a_rubric_with_a_failed_criterion_asks_only_for_that_one_again(judge):
    judge.script = [fine, broken, either]
    used = worker(judge.server_port, mode="rubric", rubric=RUBRIC, max_concurrency=1, retries=0)
    (first,) = used.evaluate([group()])
    assert (first.state, list(first.parts)) == ("failed", ["hands"])
    assert first.reason.startswith("light: status 500")
    (second,) = used.evaluate([group()])
    assert second.state == "ready"
    assert len(judge.requests) == 3


def test_a_slow_judge_is_asked_several_times_at_once_but_not_more_than_allowed(judge):
    judge.script = [slow]
    started = time.monotonic()
    records = worker(judge.server_port, max_concurrency=4).evaluate([group(8)])
    assert {record.state for record in records} == {"ready"}
    assert time.monotonic() - started >= 0.3
    assert judge.most_busy == 4


@pytest.mark.parametrize("fault", [broken, junk, deep_junk, closing, hanging])
def test_a_fault_that_passes_is_survived(judge, fault):
    judge.script = [fault, fine]
    patience = {"timeout_s": 0.5} if fault is hanging else {}
    (record,) = worker(judge.server_port, **patience).evaluate([group()])
    assert record.value == pytest.approx(0.8 / 0.9)
    assert len(judge.requests) == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (broken, r"status 500: out of memory \(attempt 3 of 3\)"),
        (junk, r"Expecting value.*attempt 3 of 3"),
        (endless, "over 4000000 bytes"),
        (dripping, "no answer within 0.3 s"),
        (hanging, "no answer within 0.3 s; raise timeout_s or see why"),
        (closing, "RemoteProtocolError"),
    ],
)
def test_a_fault_that_stays_ends_as_failed_within_the_budget(judge, fault, reason):
    judge.script = [fault]
    started = time.monotonic()
    patience = IMPATIENT if fault in (dripping, hanging) else {}
    (record,) = worker(judge.server_port, **patience).evaluate([group()])
    assert time.monotonic() - started < 5
    assert record.state == "failed"
    assert re.search(reason, record.reason), record.reason
    assert len(judge.requests) <= 3


def test_a_rate_limit_is_waited_for_as_long_as_the_server_says(judge):
    judge.script = [limited, fine]
    started = time.monotonic()
    (record,) = worker(judge.server_port).evaluate([group()])
    assert record.state == "ready"
    assert time.monotonic() - started >= 1.0


def test_a_rate_limit_past_the_budget_is_not_waited_for(judge):
    judge.script = [limited_for_an_hour]
    started = time.monotonic()
    (record,) = worker(judge.server_port).evaluate([group()])
    assert time.monotonic() - started < 10
    assert record.reason == "status 429: slow down; the next try in 3.6e+03 s is past the deadline"


@pytest.mark.parametrize(("fault", "status"), [(echoing_the_key, 401), (redirecting, 307)])
def test_a_refusal_is_not_repeated_and_no_redirect_followed(judge, fault, status):
    judge.script = [fault]
    (record,) = worker(judge.server_port).evaluate([group()])
    assert record.reason.startswith(f"status {status}")
    assert len(judge.requests) == 1


def test_the_key_is_sent_but_never_told(judge, monkeypatch, caplog):
    monkeypatch.setenv("OUR_JUDGE_KEY", "sk-very-secret")
    judge.script = [echoing_the_key]
    caplog.set_level("DEBUG")
    used = worker(judge.server_port, api_key_env="OUR_JUDGE_KEY")
    (record,) = used.evaluate([group()])
    assert judge.requests[0][1]["authorization"] == "Bearer sk-very-secret"
    assert record.reason == "status 401: bad Bearer ***"
    assert "sk-very-secret" not in caplog.text + used._version


def test_one_bad_answer_costs_one_image(judge):
    judge.script = [fine, broken, fine]
    used = worker(judge.server_port, max_concurrency=1, retries=0)
    states = [record.state for record in used.evaluate([group(3)])]
    assert states == ["ready", "failed", "ready"]


def test_an_image_is_judged_once_and_remembered_for_its_prompt(judge):
    used = worker(judge.server_port)
    used.evaluate([group(2)])
    records = used.evaluate([group(2)])
    assert len(judge.requests) == 2
    assert {record.state for record in records} == {"ready"}
    used.evaluate([group(2, text="a cat")])
    assert len(judge.requests) == 4


def test_equal_images_of_one_batch_are_one_request(judge):
    judge.script = [slow]
    images = torch.zeros(4, 1, 3, 8, 8, dtype=torch.uint8)
    images[3] = 9
    records = worker(judge.server_port).evaluate([ImageGroup(0, Prompt("p:1", "a dog"), 0, images)])
    assert {record.state for record in records} == {"ready"}
    assert len(judge.requests) == 2


def test_a_failure_is_not_remembered_and_the_cache_is_bounded(judge):
    judge.script = [broken, fine]
    used = worker(judge.server_port, retries=0, cache_size=1, max_concurrency=1)
    assert used.evaluate([group()])[0].state == "failed"
    assert used.evaluate([group()])[0].state == "ready"
    used.evaluate([group(2)])
    assert len(judge.requests) == 3
    used.evaluate([group(1)])
    assert len(judge.requests) == 4


def test_a_judge_that_is_not_there_is_failed_quickly():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    (record,) = worker(port).evaluate([group()])
    assert time.monotonic() - started < 10
    assert record.state == "failed"
    assert "ConnectError" in record.reason


def test_many_images_at_a_dead_judge_end_together_at_the_budget(judge):
    judge.script = [hanging]
    started = time.monotonic()
    patience = {"timeout_s": 0.5, "budget_s": 1}
    records = worker(judge.server_port, max_concurrency=2, **patience).evaluate([group(12)])
    assert 1 <= time.monotonic() - started < 5
    assert {record.state for record in records} == {"failed"}
    assert records[-1].reason == "no time was left to ask; raise budget_s or lower batch_size"
