"""What a service says is told without the key; a name that is not found ends in time."""

import asyncio
import json
import socket
import threading
import time

import httpx
import numpy as np
import pytest

from services.reward.bounded_calls import MAX_EXCERPT, CallError, Patience, Reply
from services.reward.contract import RewardInput
from services.reward.http_scorer import HttpScorer
from services.reward.option_checks import api_key
from services.reward.vlm_judge import VlmJudge
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit

KEY = 'sk-"very"/secret\\key<1>'


def ask(status: int, content: bytes, parse=bytes.decode, secret: str = KEY):
    """The answer to one call that comes back like this."""

    async def send(ends: float) -> Reply:
        return Reply(status, httpx.Headers(), content)

    patience = Patience(timeout_s=5, retries=0, backoff_s=1)
    return asyncio.run(patience.ask(send, parse, time.monotonic() + 10, secret))


@pytest.mark.parametrize("status", [401, 500])
@pytest.mark.parametrize("shown", range(1, len(KEY) + 1))
def test_a_key_across_the_cut_of_an_error_is_hidden(status, shown):
    body = "x" * (MAX_EXCERPT - shown) + KEY
    with pytest.raises(CallError) as caught:
        ask(status, body.encode())
    assert KEY[:2] not in str(caught.value)
    assert f"status {status}: xx" in str(caught.value)


@pytest.mark.parametrize(
    "spelt",
    [
        json.dumps(KEY),
        json.dumps(KEY).replace("/", "\\/"),
        json.dumps(KEY).replace("<", "\\u003c").replace(">", "\\u003E"),
    ],
)
def test_a_key_in_a_good_answer_is_hidden_however_json_escapes_it(spelt):
    assert json.loads(spelt) == KEY
    assert json.loads(ask(200, b'{"reason": ' + spelt.encode() + b"}")) == {"reason": "***"}


def test_a_reason_that_quotes_a_part_of_a_good_answer_has_no_part_of_the_key():
    def parse(content: bytes) -> str:
        raise ValueError(f"no JSON: {content[:12].decode()}")

    with pytest.raises(CallError, match=r"no JSON: I got \*\*\*"):
        ask(200, f"I got {KEY}".encode(), parse)


def test_a_key_as_short_as_a_word_leaves_good_answers_as_they_are():
    assert ask(200, b'{"score": 1, "reason": "1"}', secret="1") == '{"score": 1, "reason": "1"}'


def test_an_answer_without_the_key_is_given_as_it_came():
    content = json.dumps({"reason": "sk-\u00fc\n", "score": 1.5}).encode()
    assert ask(200, content) == content.decode()


def test_a_backslash_before_a_key_stays_one():
    content = json.dumps({"reason": f"C:\\{KEY}"}).encode()
    assert json.loads(ask(200, content)) == {"reason": "C:\\***"}


@pytest.mark.parametrize("key", ["sk-\u00fcber", "sk-two words", "sk-line\nbreak", "sk-\x7f"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OUR_KEY", key)
    with pytest.raises(ValueError, match=r"'OUR_KEY': .* other than visible ASCII") as caught:
        api_key("OUR_KEY")
    assert "sk-" not in str(caught.value)


def test_a_key_of_visible_ascii_is_read_without_the_blanks_around_it(monkeypatch):
    monkeypatch.setenv("OUR_KEY", f" {KEY}\n")
    assert api_key("OUR_KEY") == KEY


@pytest.fixture
def resolver(monkeypatch):
    """The system's resolver, that answers nobody until the test is over."""
    asked, over = [], threading.Event()

    def hang(host, *_, **hints):
        asked.append(host)
        over.wait(30)
        raise socket.gaierror("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield asked
    over.set()


HOST = "slow-names.test"
NAMED = {
    "http": HttpScorer(
        f"https://{HOST}/", [HOST], timeout_s=0.3, budget_s=2, retries=1, backoff_s=0.01
    ),
    "vlm_judge": VlmJudge(
        f"https://{HOST}/v1", "m", timeout_s=0.3, budget_s=2, retries=1, backoff_s=0.01
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_name_look_up_that_hangs_ends_with_the_budget(resolver, kind):
    image = RewardInput(np.zeros((4, 4, 3), np.uint8), Prompt("p:1", "a dog"), 0, 0, 0)
    started = time.monotonic()
    (verdict,) = NAMED[kind].evaluate([image])
    assert time.monotonic() - started < 5
    assert verdict.value is None
    assert verdict.reason.startswith("no answer within")
    assert resolver, "nobody was asked"
