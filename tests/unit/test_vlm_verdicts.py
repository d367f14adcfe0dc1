"""What a completion means, and when a server wants to be asked again."""

import base64
import io
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from services.reward.chat_client import chat_url, retry_after_s
from services.reward.vlm_judge import VlmJudge, png_data_url, verdict_of

pytestmark = pytest.mark.unit

URL = "http://127.0.0.1:1/v1"


def completion(text, *first_words, lead=()):
    """A completion; each first word is (token, probability); `lead` tokens come before it."""
    tokens = [{"token": token, "logprob": 0.0, "top_logprobs": []} for token in lead]
    options = [{"token": word, "logprob": math.log(p)} for word, p in first_words]
    tokens.append({"token": text or "?", "logprob": 0.0, "top_logprobs": options})
    choice = {"message": {"content": text}}
    if first_words:
        choice["logprobs"] = {"content": tokens}
    return {"choices": [choice]}


def test_the_reward_is_yes_over_yes_and_no_with_all_spellings():
    words = (("Yes", 0.4), (" yes", 0.1), ("\u2581YES", 0.1), ("No", 0.15), ("Maybe", 0.2))
    verdict = verdict_of(completion("Yes", *words))
    assert verdict.value == pytest.approx(0.6 / 0.75)
    assert verdict.parts == pytest.approx({"p_yes": 0.6, "p_no": 0.15})
    assert verdict.reason == "answered 'Yes'"


def test_blank_tokens_before_the_word_are_skipped():
    words = (("yes", 0.2), ("no", 0.6))
    assert verdict_of(completion("no", *words, lead=("\n", " "))).value == pytest.approx(0.25)


@pytest.mark.parametrize(("text", "value"), [("Yes.", 1.0), (" no, because", 0.0), ('"YES"', 1.0)])
def test_the_text_decides_where_there_are_no_probabilities(text, value):
    assert verdict_of(completion(text)).value == value


def test_the_text_decides_where_yes_and_no_are_hardly_thought_of():
    assert verdict_of(completion("The", ("The", 0.9), ("yes", 0.001))).value is None
    assert verdict_of(completion("yes", ("The", 0.9))).value == 1.0


@pytest.mark.parametrize("text", ["", "maybe", "yesterday", "Nothing"])
def test_an_answer_that_is_neither_has_no_value(text):
    verdict = verdict_of(completion(text))
    assert verdict.value is None
    assert verdict.reason == f"answered {text!r}, neither yes nor no"


@pytest.mark.parametrize("junk", [None, [], {}, {"choices": []}, {"choices": [{"message": 3}]}])
def test_what_is_no_completion_is_an_error(junk):
    with pytest.raises(ValueError, match="not a chat completion"):
        verdict_of(junk)


def test_a_completion_without_text_is_an_error():
    with pytest.raises(ValueError, match="content is None"):
        verdict_of(completion(None))


@pytest.mark.parametrize("logprobs", [3, {"content": None}, {"content": [{"token": 1}]}])
def test_probabilities_of_another_shape_count_as_none(logprobs):
    response = completion("yes")
    response["choices"][0]["logprobs"] = logprobs
    assert verdict_of(response).value == 1.0


def test_the_image_is_sent_without_loss():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    url = png_data_url(image)
    assert url.startswith("data:image/png;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (np.array(sent) == image).all()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("-5", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    assert retry_after_s(header, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


def test_the_chat_resource_is_under_the_base_url():
    assert chat_url("https://judge:8000/v1/") == "https://judge:8000/v1/chat/completions"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "judge:8000"}, "write it as http://host:port/v1"),
        ({"base_url": "ftp://judge"}, "write it as http"),
        ({"base_url": "http://judge/v1?key=1"}, "without a query"),
        ({"base_url": "http://me:secret@judge/v1"}, "use api_key_env"),
        ({"base_url": 3}, "is no URL"),
        ({"api_key_env": "TDM_R1_NO_SUCH_KEY"}, "TDM_R1_NO_SUCH_KEY.* is not set"),
        ({"timeout_s": 0}, "timeout_s=0: allowed are seconds above 0"),
        ({"budget_s": math.inf}, "budget_s=inf"),
        ({"retries": -1}, "retries=-1: allowed is a whole number from 0"),
        ({"max_concurrency": 0}, "max_concurrency=0: .* from 1"),
        ({"cache_size": 1.5}, "cache_size=1.5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VlmJudge(**{"base_url": URL, "model": "m", **options})


def test_the_version_changes_with_what_is_asked_but_not_with_patience():
    first = VlmJudge(URL, "m").version
    assert VlmJudge(URL, "m", timeout_s=1, retries=0).version == first
    assert VlmJudge(URL, "m", question="Is it pretty?").version != first
    assert VlmJudge(URL, "m", seed=1).version != first
    assert VlmJudge(URL, "m", extra_body={"temperature": 1}).version != first
