"""What a chat completion says about an image: a yes or no by its probabilities, or a JSON score."""

import json
import math
from collections.abc import Mapping
from typing import Any

from services.reward.contract import Verdict
from services.reward.judge_questions import Form, Scale, first_word, yes_no_verdict

YES_NO_TOKENS = 8
SCORE_TOKENS = 320
MAX_REASON_CHARACTERS = 200


def instructions(scale: Scale) -> dict[Form, str]:
    """How to answer, in words, for the end of a question."""
    return {
        "yes_no": "Answer with yes or no only.",
        "score": f'Answer in JSON: a short "reason" first, then "score", {scale.text}.',
    }


def request_fields(form: Form, scale: Scale, top_logprobs: int) -> dict[str, Any]:
    """What a request for such an answer has besides its message."""
    if form == "score":
        schema = {"name": "verdict", "strict": True, "schema": score_schema(scale)}
        return {
            "max_tokens": SCORE_TOKENS,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
    asked = {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
    return {"max_tokens": YES_NO_TOKENS, **asked}


def score_schema(scale: Scale) -> dict[str, Any]:
    """JSON schema of a score; the reason stands first, so that the score can follow from it."""
    whole = scale.whole
    bounds = [int(bound) if whole else bound for bound in (scale.lowest, scale.highest)]
    score = {"type": "integer" if whole else "number", "minimum": bounds[0], "maximum": bounds[1]}
    return {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "maxLength": MAX_REASON_CHARACTERS},
            "score": score,
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }


def answer_of(content: bytes, form: Form, scale: Scale) -> Verdict:
    """What a completion's bytes say; ValueError where they are no completion."""
    choice, text = _choice_of(json.loads(content))
    if text is None:
        return Verdict(None, reason=f"refused: {choice['message']['refusal']}")
    return _yes_no(choice, text) if form == "yes_no" else _score(choice, text, scale)


def _choice_of(response: Any) -> tuple[Mapping[str, Any], str | None]:
    """The first choice and its text; None where the model refused to answer."""
    try:
        choice = response["choices"][0]
        message = choice["message"]
        text = message["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a chat completion: {str(response)[:160]}") from error
    if text is None and isinstance(message.get("refusal"), str):
        return choice, None
    if not isinstance(text, str):
        raise ValueError(f"the completion's content is {text!r}, not a text")
    return choice, text


def _yes_no(choice: Mapping[str, Any], text: str) -> Verdict:
    verdict = yes_no_verdict(*_yes_no_mass(choice), f"answered {text!r}")
    if verdict is not None:
        return verdict
    word = first_word(text)
    if word in ("yes", "no"):
        return Verdict(float(word == "yes"), reason=f"answered {text!r}, no probabilities given")
    return Verdict(None, reason=f"answered {text!r}, neither yes nor no")


def _yes_no_mass(choice: Mapping[str, Any]) -> tuple[float, float]:
    """Probabilities of all spellings of yes and of no as the first word; zeros where not given."""
    mass = {"yes": 0.0, "no": 0.0}
    try:
        tokens = [token for token in choice["logprobs"]["content"] if token["token"].strip()]
        for option in tokens[0]["top_logprobs"]:
            if first_word(option["token"]) in mass:
                mass[first_word(option["token"])] += math.exp(min(option["logprob"], 0.0))
    except (KeyError, IndexError, TypeError, AttributeError):
        return 0.0, 0.0  # no log-probabilities, or none of this shape: the text decides
    return mass["yes"], mass["no"]


def _score(choice: Mapping[str, Any], text: str, scale: Scale) -> Verdict:
    if choice.get("finish_reason") == "length":
        return Verdict(
            None, reason=f"cut off: {text[-80:]!r}; give more room: extra_body: {{max_tokens: ...}}"
        )
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return Verdict(None, reason=f"answered {text[:160]!r}, which is no JSON")
    if not isinstance(answer, dict) or not isinstance(answer.get("reason"), str):
        return Verdict(None, reason=f"answered {text[:160]!r}, not an object of reason and score")
    score = answer.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not scale.allows(score):
        return Verdict(None, reason=f"gave the score {score!r}; allowed: {scale.text}")
    return Verdict(scale.value(score), {"score": float(score)}, answer["reason"])
