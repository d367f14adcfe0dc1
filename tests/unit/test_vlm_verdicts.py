"""What a completion means, and when a server wants to be asked again."""

import base64
import io
import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from services.reward.bounded_calls import retry_after_s
from services.reward.chat_answers import answer_of, score_schema
from services.reward.chat_client import chat_url, png_data_url
from services.reward.contract import Verdict
from services.reward.judge_questions import Scale, read_questions
from services.reward.vlm_judge import VlmJudge

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


def verdict_of(response):
    return answer_of(json.dumps(response).encode(), "yes_no", Scale())


def score_of(text, finish_reason="stop", **scale):
    response = completion(text)
    response["choices"][0]["finish_reason"] = finish_reason
    return answer_of(json.dumps(response).encode(), "score", Scale(**scale))


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


def test_a_refusal_is_an_answer_without_a_value():
    response = {"choices": [{"message": {"content": None, "refusal": "I cannot judge people"}}]}
    verdict = verdict_of(response)
    assert verdict.value is None
    assert verdict.reason == "refused: I cannot judge people"


@pytest.mark.parametrize(
    ("scale", "score", "value"),
    [
        ({}, 7, 0.7),
        ({"lowest": 1, "highest": 5}, 2, 0.25),
        ({"lowest": 1, "highest": 5, "normalise": False}, 2, 2.0),
        ({"lowest": -1, "highest": 1, "whole": False}, 0.5, 0.75),
        ({}, 7.0, 0.7),
        ({}, 0, 0.0),
        ({}, 10, 1.0),
    ],
)
def test_a_score_is_its_place_in_the_range_or_itself(scale, score, value):
    verdict = score_of(json.dumps({"reason": "good hands", "score": score}), **scale)
    assert verdict.value == pytest.approx(value)
    assert verdict.parts == {"score": score}
    assert verdict.reason == "good hands"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8", "not an object of reason and score"),
        ("eight", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('```json\n{"reason": "x", "score": 8}\n```', "no JSON"),
        ('{"score": 8}', "not an object of reason and score"),
        ('{"reason": "x"}', "gave the score None"),
        (
            '{"reason": "x", "score": "8"}',
            "gave the score '8'; allowed: a whole number from 0 to 10",
        ),
        ('{"reason": "x", "score": true}', "gave the score True"),
        ('{"reason": "x", "score": NaN}', "gave the score nan"),
        ('{"reason": "x", "score": Infinity}', "gave the score inf"),
        ('{"reason": "x", "score": 10.5}', "allowed: a whole number from 0 to 10"),
        ('{"reason": "x", "score": -1}', "allowed: a whole number from 0 to 10"),
        ('{"reason": "x", "score": 7.5}', "gave the score 7.5; allowed: a whole number"),
    ],
)
def test_a_score_that_breaks_the_schema_has_no_value(text, reason):
    verdict = score_of(text)
    assert verdict.value is None
    assert reason in verdict.reason


def test_a_score_that_was_cut_off_says_what_to_give_it():
    verdict = score_of('{"reason": "the sky is', finish_reason="length")
    assert verdict.value is None
    assert "max_tokens" in verdict.reason


def test_the_schema_has_the_range_and_takes_nothing_else():
    schema = score_schema(Scale(lowest=1, highest=5))
    assert schema["properties"]["score"] == {"type": "integer", "minimum": 1, "maximum": 5}
    assert list(schema["properties"]) == schema["required"] == ["reason", "score"]
    assert schema["additionalProperties"] is False
    loose = score_schema(Scale(lowest=0, highest=0.5, whole=False))["properties"]["score"]
    assert loose == {"type": "number", "minimum": 0, "maximum": 0.5}


HANDS = {"name": "hands", "question": "Are the hands fine?", "weight": 3}
BLUR = {"name": "blur", "question": "Is it blurred?", "weight": -1}


def test_a_rubric_is_the_weighted_mean_of_its_answers():
    rubric = read_questions("rubric", None, None, [HANDS, BLUR])
    verdict = rubric.combine([Verdict(0.8), Verdict(0.4)])
    assert verdict.value == pytest.approx((3 * 0.8 - 0.4) / 4)
    assert verdict.parts == {"hands": 0.8, "blur": 0.4}
    assert verdict.reason == "hands 0.8; blur 0.4"


def test_a_rubric_with_an_answer_missing_has_no_value_but_the_other_parts():
    rubric = read_questions("rubric", None, None, [HANDS, BLUR])
    verdict = rubric.combine([Verdict(0.8), Verdict(None, reason="status 500")])
    assert verdict.value is None
    assert verdict.parts == {"hands": 0.8}
    assert verdict.reason == "blur: status 500"


def test_the_order_of_a_rubric_does_not_matter_to_its_value():
    one = read_questions("rubric", None, None, [HANDS, BLUR]).combine([Verdict(0.8), Verdict(0.4)])
    two = read_questions("rubric", None, None, [BLUR, HANDS]).combine([Verdict(0.4), Verdict(0.8)])
    assert one.value == pytest.approx(two.value)


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
        ("\u00b2", None),
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
        ({"mode": "stars"}, "mode='stars': allowed are yes_no, score, rubric"),
        ({"scale": {"highest": 5}}, "scale has no meaning with mode yes_no"),
        ({"mode": "score", "scale": 5}, "option scale is 5; write it as key: value pairs"),
        ({"mode": "score", "scale": {"hihgest": 5}}, "did you mean 'highest'"),
        ({"mode": "score", "scale": {"highest": "a"}}, "option scale: highest: .*valid number"),
        (
            {"mode": "score", "scale": {"lowest": 3, "highest": 3}},
            "lowest=3 is not below highest=3",
        ),
        ({"mode": "score", "scale": {"highest": 0.5}}, "whole=true with scores from 0 to 0.5"),
        ({"mode": "score", "rubric": [HANDS]}, "rubric has no meaning with mode score"),
        ({"mode": "rubric"}, r"rubric=None: mode rubric needs a list of criteria"),
        ({"mode": "rubric", "rubric": []}, "needs a list of criteria"),
        ({"mode": "rubric", "rubric": [HANDS], "question": "Good?"}, "question has no meaning"),
        ({"mode": "rubric", "rubric": [HANDS, HANDS]}, "name hands is used twice"),
        ({"mode": "rubric", "rubric": [{**HANDS, "weight": 0}]}, "weight of hands is 0"),
        ({"mode": "rubric", "rubric": [{**HANDS, "wieght": 1}]}, r"rubric\[0\]: unknown.*'weight'"),
        ({"mode": "rubric", "rubric": [{"name": "x"}]}, r"rubric\[0\]: question: is missing"),
        ({"mode": "rubric", "rubric": [HANDS], "scale": {"normalise": False}}, "by their range"),
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
    assert VlmJudge(URL, "m", mode="score").version != first
    five = VlmJudge(URL, "m", mode="score", scale={"highest": 5}).version
    assert VlmJudge(URL, "m", mode="score").version != five
    assert VlmJudge(URL, "m", mode="rubric", rubric=[HANDS]).version != first
    assert VlmJudge(URL, "m", extra_body={"temperature": 1}).version != first
