"""A scorer over HTTP that behaves, or does not: each image ends in a state, within its time."""

import asyncio
import io
import json
import re
import socket
import ssl
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import trustme
import uvicorn
from PIL import Image
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartParser

from services.config import RewardConfig
from services.reward.contract import RewardInput, units_of
from services.reward.custom import load_attribute
from services.reward.http_scorer import HttpScorer
from services.reward.http_wire import wire_schema
from services.reward.toy import UpperHalf
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
    serving,
)
from tests.train_cases import Running, numbers, reward, toy_run

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"


def parsed(headers, body: bytes) -> dict:
    """The parts of a request: the JSON, and every PNG as an array."""

    async def parse():
        async def stream():
            yield body

        form = await MultiPartParser(Headers(dict(headers.items())), stream()).parse()
        return {name: await part.read() for name, part in form.items()}

    parts = asyncio.run(parse())
    request = json.loads(parts.pop("request"))
    return {"request": request} | {
        name: np.array(Image.open(io.BytesIO(part))) for name, part in parts.items()
    }


def answers(*values, **fields) -> bytes:
    """A response with these values, whatever they are."""
    listed = [value if isinstance(value, dict) else {"value": value} for value in values]
    return json.dumps({"protocol": 1, "version": "v1", "answers": listed} | fields).encode()


def answering(*values, **fields):
    def act(handler: Handler) -> None:
        handler.answer(200, answers(*values, **fields))

    return act


@pytest.fixture
def scorer():
    """A scorer of three images on a free port of this machine; tests set its script."""
    with serving(answering(1, 2, 3)) as server:
        yield server


IMPATIENT = {"timeout_s": 0.3, "budget_s": 5}


def options(port: int, **more) -> dict:
    local = {"url": f"http://127.0.0.1:{port}/score", "allowed_hosts": [f"127.0.0.1:{port}"]}
    patience = {"timeout_s": 10, "budget_s": 20, "backoff_s": 0.01}
    return {**local, "allow_private": True, **patience, **more}


def worker(port: int, **more) -> RewardWorker:
    config = RewardConfig(
        name="remote", kind="http", options=options(port, **more), deadline_s=25, batch_size=8
    )
    return RewardWorker(config)


def group(count: int = 3, number: int = 0, **metadata) -> ImageGroup:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None, None]
    images = images.expand(-1, 1, 3, 8, 6).contiguous()
    images[:, 0, 2, 4, 5] = 200 + number
    return ImageGroup(number, Prompt("p.txt:1", "a d\u00f6g", metadata), 0, images)


def test_a_batch_is_one_request_with_lossless_images_and_everything_known_of_them(scorer):
    records = worker(scorer.server_port).evaluate([group(tag="counting")])
    assert [record.value for record in records] == [1, 2, 3]
    ((path, headers, body),) = scorer.requests
    assert (path, headers["host"]) == ("/score", f"127.0.0.1:{scorer.server_port}")
    parts = parsed(headers, body)
    assert parts["request"] == {
        "protocol": 1,
        "groupwise": False,
        "items": [
            {
                "image": f"image_{n}",
                "prompt": "a d\u00f6g",
                "prompt_id": "p.txt:1",
                "metadata": {"tag": "counting"},
                "group": n,
            }
            for n in range(3)
        ],
    }
    for n, item in enumerate(units_of(group())[0]):
        assert (parts[f"image_{n}"] == item.image).all()


def test_requests_keep_to_the_published_schema(scorer):
    worker(scorer.server_port).evaluate([group()])
    request = parsed(*scorer.requests[0][1:])["request"]
    schema = wire_schema()
    jsonschema.validate(request, {"$ref": "#/$defs/ScoreRequest", **schema})
    jsonschema.validate(json.loads(answers(1)), {"$ref": "#/$defs/ScoreResponse", **schema})


def test_batches_are_cut_to_the_configs_size(scorer):
    scorer.script = [answering(*range(8)), answering(9)]
    records = worker(scorer.server_port).evaluate([group(9)])
    assert [record.value for record in records] == [*range(8), 9]


def test_a_groupwise_scorer_sees_whole_groups_and_answers_for_each(scorer):
    scorer.script = [answering(1, 2, 3, 4, 5)]
    records = worker(scorer.server_port, groupwise=True).evaluate([group(3), group(2, number=7)])
    assert [(r.group_id, r.sample, r.value) for r in records] == [
        (0, 0, 1),
        (0, 1, 2),
        (0, 2, 3),
        (7, 0, 4),
        (7, 1, 5),
    ]
    request = parsed(*scorer.requests[0][1:])["request"]
    assert request["groupwise"] is True
    assert [item["group"] for item in request["items"]] == [0, 0, 0, 1, 1]


def test_parts_and_reasons_are_recorded_and_an_image_without_a_value_is_failed(scorer):
    good = {"value": 0.5, "parts": {"hands": 1}, "reason": "fine"}
    scorer.script = [answering(good, {"value": None, "reason": "no face"}, 0)]
    first, second, third = worker(scorer.server_port).evaluate([group()])
    assert (first.value, first.parts, first.reason) == (0.5, {"hands": 1.0}, "fine")
    assert (second.state, second.reason) == ("failed", "no face")
    assert (third.state, third.value) == ("ready", 0.0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_costs_its_image_alone(scorer, number):
    scorer.script = [answering(1, number, 3)]
    states = [record.state for record in worker(scorer.server_port).evaluate([group()])]
    assert states == ["ready", "failed", "ready"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (answering(1, 2), "the scorer gave 2 answers for 3 images"),
        (answering(1, 2, 3, 4), "the scorer gave 4 answers for 3 images"),
        (answering(1, "2", 3), r"answers.1.value: .*valid number \(got '2'\)"),
        (answering(1, True, 3), "answers.1.value"),
        (answering(1, [2], 3), "answers.1.value"),
        (answering(1, {"value": 2, "parts": {"a": "x"}}, 3), "answers.1.parts.a"),
        (answering(1, {"parts": {}}, 3), "answers.1.value: is missing"),
        (answering({}, {}, {}), r"answers.0.value: is missing.*\(and 2 more\)"),
        (answering(1, 2, 3, protocol=2), "protocol"),
        (answering(1, 2, 3, version=""), "version"),
        (answering(1, 2, 3, answers={"0": 1}), "answers: .*valid list"),
        (junk, "Expecting value"),
        (deep_junk, "recursion"),
        (broken, "status 500: out of memory"),
        (endless, "over 4000000 bytes"),
        (dripping, "no answer within 0.3 s"),
        (hanging, "no answer within 0.3 s; raise timeout_s or see why"),
        (closing, "RemoteProtocolError"),
    ],
)
def test_a_fault_that_stays_ends_as_failed_within_the_budget(scorer, act, reason):
    scorer.script = [act]
    started = time.monotonic()
    patience = IMPATIENT if act in (dripping, hanging) else {}
    records = worker(scorer.server_port, **patience).evaluate([group()])
    assert time.monotonic() - started < 10
    assert {record.state for record in records} == {"failed"}
    assert re.search(reason, records[0].reason), records[0].reason
    assert records[0].reason.endswith("(attempt 3 of 3)")
    assert len(scorer.requests) == 3


def test_a_request_that_is_too_long_is_not_sent_and_its_images_say_so(scorer):
    worker(scorer.server_port).evaluate([group()])
    length = len(scorer.requests[0][2])
    records = worker(scorer.server_port, max_request_bytes=length - 1).evaluate([group()])
    assert len(scorer.requests) == 1
    assert {record.state for record in records} == {"failed"}
    assert records[0].reason == (
        f"not sent: {length} bytes for 3 images are over max_request_bytes={length - 1}; lower "
        "batch_size, or raise it if the scorer takes as many"
    )
    exactly = worker(scorer.server_port, max_request_bytes=length)
    assert exactly.evaluate([group()])[0].value == 1


@pytest.mark.parametrize("act", [broken, junk, closing, limited, answering(1)])
def test_a_fault_that_passes_is_survived(scorer, act):
    scorer.script = [act, answering(1, 2, 3)]
    started = time.monotonic()
    records = worker(scorer.server_port).evaluate([group()])
    assert [record.value for record in records] == [1, 2, 3]
    assert act is not limited or time.monotonic() - started >= 1.0


def test_a_rate_limit_past_the_budget_is_not_waited_for(scorer):
    scorer.script = [limited_for_an_hour]
    record = worker(scorer.server_port).evaluate([group()])[0]
    assert record.reason.startswith("status 429: slow down; the next try in 3.6e+03 s")
    assert len(scorer.requests) == 1


def test_a_redirect_is_not_followed(scorer):
    with serving(answering(1, 2, 3)) as other:
        away = f"http://127.0.0.1:{other.server_port}/"
        scorer.script = [lambda handler: handler.answer(307, b"", location=away)]
        records = worker(scorer.server_port).evaluate([group()])
        assert {record.reason for record in records} == {
            "status 307: redirects are not followed; correct the URL"
        }
        assert (len(scorer.requests), len(other.requests)) == (1, 0)


def test_the_key_is_sent_but_never_told(scorer, monkeypatch, caplog):
    monkeypatch.setenv("OUR_SCORER_KEY", "sk-very-secret")
    scorer.script = [echoing_the_key]
    caplog.set_level("DEBUG")
    record = worker(scorer.server_port, api_key_env="OUR_SCORER_KEY").evaluate([group()])[0]
    assert scorer.requests[0][1]["authorization"] == "Bearer sk-very-secret"
    assert record.reason == "status 401: bad Bearer ***"
    assert "sk-very-secret" not in caplog.text


def test_another_version_of_the_scorer_than_the_configs_gives_no_values(scorer):
    (record, *_) = worker(scorer.server_port, scorer_version="v2").evaluate([group()])
    assert record.reason.startswith("the scorer is version 'v1', not scorer_version='v2'")
    assert len(scorer.requests) == 1
    assert worker(scorer.server_port, scorer_version="v1").evaluate([group()])[0].value == 1


def test_a_record_has_the_version_of_the_scorer_that_answered(scorer):
    scorer.script = [answering(1, 2, 3), answering(1, 2, 3, version="v2"), broken]
    used = worker(scorer.server_port, retries=0)
    ours = used._version
    found = [used.evaluate([group()])[0].version for _ in range(3)]
    assert found == [f"{ours}:v1", f"{ours}:v2", ours]


def test_a_ranked_scorer_keeps_the_version_that_answered(scorer):
    inner = {"kind": "http", "options": options(scorer.server_port)}
    config = RewardConfig(name="order", kind="ranked", options=inner)
    assert RewardWorker(config).evaluate([group()])[0].version.endswith(":v1")


def test_no_proxy_of_the_environment_is_asked(scorer, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert worker(scorer.server_port).evaluate([group()])[0].value == 1


class Resolving(HttpScorer):
    """A scorer whose host has the addresses of a script, one entry a look."""

    script: tuple = ()

    async def look_up(self, host, port):
        self.looks = getattr(self, "looks", 0) + 1
        found = self.script[min(self.looks, len(self.script)) - 1]
        if isinstance(found, OSError):
            raise found
        return found


def resolving(port: int, *script, **more) -> Resolving:
    named = {"url": f"http://scorer.test:{port}/score", "allowed_hosts": [f"scorer.test:{port}"]}
    reward = Resolving(**options(port, **{**named, **more}))
    reward.script = script
    return reward


def test_the_connection_goes_to_the_address_that_was_checked_under_the_names_host(scorer):
    reward = resolving(scorer.server_port, ["127.0.0.1"])
    assert [answer.value for answer in reward.evaluate(units_of(group())[0])] == [1, 2, 3]
    assert reward.looks == 1, "the name was looked up again after the check"
    assert scorer.requests[0][1]["host"] == f"scorer.test:{scorer.server_port}"


@contextmanager
def swallowing(port: int):
    """127.0.0.2 answers no more connections: its queue is full and nobody takes from it."""
    with socket.socket() as deaf, ExitStack() as waiting:
        deaf.bind(("127.0.0.2", port))
        deaf.listen(0)
        for _ in range(3):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.2", port))
        yield


@pytest.mark.skipif(sys.platform != "linux", reason="needs more than one loopback address")
def test_an_address_that_refuses_or_swallows_connections_leaves_time_for_the_next(scorer):
    port = scorer.server_port
    refused = resolving(port, ["127.0.0.3", "127.0.0.1"])
    assert refused.evaluate(units_of(group())[0])[0].value == 1
    with swallowing(port):
        swallowed = resolving(port, ["127.0.0.2", "127.0.0.1"], timeout_s=1, retries=0)
        assert swallowed.evaluate(units_of(group())[0])[0].value == 1
        nowhere = resolving(port, ["127.0.0.2", "127.0.0.3"], timeout_s=1, retries=0)
        answer = nowhere.evaluate(units_of(group())[0])[0]
    assert re.match("ConnectError: 127.0.0.2: no connection .*; 127.0.0.3: ", answer.reason)
    assert len(scorer.requests) == 2


def test_an_answer_that_breaks_off_is_no_reason_to_ask_the_next_address(scorer):
    scorer.script = [closing]
    reward = resolving(scorer.server_port, ["127.0.0.1", "127.0.0.3"], retries=0)
    assert "RemoteProtocolError" in reward.evaluate(units_of(group())[0])[0].reason
    assert len(scorer.requests) == 1


@pytest.mark.parametrize(
    ("name", "trusted", "reason"),
    [
        ("scorer.test", True, None),
        ("other.test", True, "Hostname mismatch, certificate is not valid for 'scorer.test'"),
        ("scorer.test", False, "certificate verify failed"),
    ],
)
def test_a_certificate_must_be_of_the_name_though_an_address_is_connected_to(
    tmp_path, name, trusted, reason
):
    authority, theirs = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(theirs)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(answering(1, 2, 3), tls=theirs) as server:
        more = {"ca_file": str(tmp_path / "ca.pem")} if trusted else {}
        url = f"https://scorer.test:{server.server_port}/score"
        reward = resolving(server.server_port, ["127.0.0.1"], url=url, **more)
        answer = reward.evaluate(units_of(group())[0])[0]
        assert (answer.value == 1) == (reason is None)
        assert reason is None or reason in answer.reason
        assert len(server.requests) == (reason is None)


def test_a_name_that_is_made_to_point_inside_is_refused_before_anything_is_sent(scorer):
    port = scorer.server_port
    outside = {"url": f"https://scorer.test:{port}/score", "allow_private": False}
    for inside in (["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]):
        reward = resolving(port, OSError("try again"), inside, **outside)
        answer = reward.evaluate(units_of(group())[0])[0]
        assert answer.value is None
        assert "not sent: host 'scorer.test' has the address" in answer.reason
        assert reward.looks == 2
    assert scorer.requests == []


def test_a_name_that_has_no_address_for_a_moment_is_tried_again(scorer):
    reward = resolving(scorer.server_port, OSError("try again"), [], ["127.0.0.1"])
    assert reward.evaluate(units_of(group())[0])[0].value == 1
    assert reward.looks == 3


def test_the_example_server_scores_images_by_its_formula(monkeypatch):
    monkeypatch.chdir(EXAMPLES)
    app = load_attribute("python:http_reward_server:app")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            flat, dot, _ = worker(listening.getsockname()[1]).evaluate([group()])
        finally:
            server.should_exit = True
            thread.join(10)
    assert flat.state == dot.state == "ready"
    # Blue 200 is grey 23 of 255, blue 1 is 0. Image 0 is black but for it at row 4, column 5, the
    # border; of the 6 x 4 Laplacians one is at its left and is 23, the others are 0.
    assert flat.value == pytest.approx(np.log1p(23**2 * (1 / 24 - 1 / 24**2)))
    assert flat.parts == {"brightness": pytest.approx(23 / 48 / 255)}


def scoring_like_the_toy_world(handler: Handler, **fields) -> None:
    """What UpperHalf says of the images, from the other side of the wire."""
    _, headers, body = handler.server.requests[-1]
    parts = parsed(headers, body)
    inputs = [
        RewardInput(np.ascontiguousarray(parts[asked["image"]]), Prompt("p:1", "x"), 0, n, 0)
        for n, asked in enumerate(parts["request"]["items"])
    ]
    handler.answer(200, answers(*UpperHalf().evaluate(inputs), **fields))


def test_a_run_rewarded_over_http_has_the_numbers_of_one_rewarded_in_process(scorer, tmp_path):
    scorer.script = [scoring_like_the_toy_world]
    remote = {"name": "upper_half", "kind": "http", "options": options(scorer.server_port)}
    found = []
    for name, rewards in (("near", [reward()]), ("far", [remote])):
        running = Running(toy_run(tmp_path / name, run={"iterations": 3}, rewards=rewards))
        running.join()
        assert running.fault is None
        found.append(numbers(running.folder))
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert len(scorer.requests) >= 3


def test_a_scorer_that_changes_in_the_middle_of_a_run_is_said_once_and_counted(scorer, tmp_path):
    newer = partial(scoring_like_the_toy_world, version="v2")
    scorer.script = [scoring_like_the_toy_world, newer, scoring_like_the_toy_world]
    remote = {"name": "mine", "kind": "http", "options": options(scorer.server_port)}
    config = toy_run(tmp_path, run={"iterations": 3}, rewards=[{**remote, "batch_size": 64}])
    running = Running(config)
    running.join()
    assert running.fault is None
    said = [line for line in running.folder.events.read_text().splitlines() if "WARNING" in line]
    assert [re.search("reward mine: .* more than one version", line) for line in said] != [None]
    assert len(said) == 1
    counted = [line.get("replay/versions/mine") for line in numbers(running.folder)]
    assert counted == [None, 2, 2]
