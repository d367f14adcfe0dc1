"""A vision language model's yes or no, asked over an OpenAI-compatible chat endpoint.

    reward = p(yes) / (p(yes) + p(no))

from the first word's log-probabilities; 1 or 0 by its text where the server gives none.
"""

import asyncio
import base64
import hashlib
import io
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.reward.chat_client import ChatError, Endpoint, chat_url
from services.reward.contract import Answer, RewardInput, Verdict

QUESTION = (
    'Does this image show exactly what the prompt "{prompt}" describes? Answer with yes or no only.'
)
MAX_TOKENS = 8
# Below this the model was about to say something else, and the ratio of two crumbs means nothing.
MIN_YES_NO_MASS = 0.05


class VlmJudge:
    """Asks about every image, several at a time, and remembers the answers."""

    requires = ("prompt", "image")

    def __init__(
        self,
        base_url: str,
        model: str,
        question: str = QUESTION,
        api_key_env: str | None = None,
        seed: int = 0,
        timeout_s: float = 20.0,
        retries: int = 2,
        backoff_s: float = 0.5,
        budget_s: float = 45.0,
        max_concurrency: int = 8,
        cache_size: int = 4096,
        top_logprobs: int = 20,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        """See docs/rewards.md; `budget_s` bounds a batch, so keep it below the deadline_s."""
        _check_seconds(timeout_s=timeout_s, budget_s=budget_s, backoff_s=backoff_s)
        _check_whole(0, retries=retries, cache_size=cache_size, top_logprobs=top_logprobs)
        _check_whole(1, max_concurrency=max_concurrency)
        self._endpoint = Endpoint(
            chat_url(base_url), _api_key(api_key_env), timeout_s, retries, backoff_s
        )
        self._settings = _settings(model, seed, top_logprobs) | dict(extra_body or {})
        self._question = question
        self._budget_s = budget_s
        self._max_concurrency = max_concurrency
        self._cache_size = cache_size
        self._cache: OrderedDict[tuple[str, str, str], Verdict] = OrderedDict()
        asked = repr((question, sorted(self._settings.items()))).encode()
        self.version = f"1:{model}:{hashlib.sha256(asked).hexdigest()[:8]}"

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The judge's probability of yes for every image; an image it did not judge has none."""
        return asyncio.run(self._evaluate(batch))

    async def _evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        deadline = time.monotonic() + self._budget_s
        slots = asyncio.Semaphore(self._max_concurrency)
        # trust_env off: only the config says where images go, no proxy variable does.
        async with httpx.AsyncClient(timeout=None, trust_env=False) as http:
            return await asyncio.gather(
                *(self._judge(http, slots, item, deadline) for item in batch)
            )

    async def _judge(
        self, http: httpx.AsyncClient, slots: asyncio.Semaphore, item: RewardInput, deadline: float
    ) -> Verdict:
        digest = hashlib.sha256(repr(item.image.shape).encode() + item.image.tobytes()).hexdigest()
        key = (digest, item.prompt.text, self.version)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            async with slots:
                body = self._body(item)
                verdict = await self._endpoint.ask(http, body, verdict_of, deadline)
        except ChatError as error:
            return Verdict(None, reason=str(error))
        self._remember(key, verdict)
        return verdict

    def _body(self, item: RewardInput) -> dict[str, Any]:
        question = self._question.replace("{prompt}", item.prompt.text)
        image = {"type": "image_url", "image_url": {"url": png_data_url(item.image)}}
        return {
            "messages": [{"role": "user", "content": [image, {"type": "text", "text": question}]}],
            **self._settings,
        }

    def _remember(self, key: tuple[str, str, str], verdict: Verdict) -> None:
        if verdict.value is None:
            return
        self._cache[key] = verdict
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def png_data_url(image: NDArray[np.uint8]) -> str:
    """An RGB image (H, W, 3) uint8 as a data URL that loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def verdict_of(response: Any) -> Verdict:
    """What a chat completion says; ValueError where it is not one."""
    try:
        choice = response["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a chat completion: {str(response)[:160]}") from error
    if not isinstance(text, str):
        raise ValueError(f"the completion's content is {text!r}, not a text")
    yes, no = _yes_no_mass(choice)
    if yes + no >= MIN_YES_NO_MASS:
        return Verdict(yes / (yes + no), {"p_yes": yes, "p_no": no}, f"answered {text!r}")
    word = _word(text)
    if word in ("yes", "no"):
        return Verdict(float(word == "yes"), reason=f"answered {text!r}, no probabilities given")
    return Verdict(None, reason=f"answered {text!r}, neither yes nor no")


def _yes_no_mass(choice: Mapping[str, Any]) -> tuple[float, float]:
    """Probabilities of all spellings of yes and of no as the first word; zeros where not given."""
    mass = {"yes": 0.0, "no": 0.0}
    try:
        tokens = [token for token in choice["logprobs"]["content"] if token["token"].strip()]
        for option in tokens[0]["top_logprobs"]:
            if _word(option["token"]) in mass:
                mass[_word(option["token"])] += math.exp(min(option["logprob"], 0.0))
    except (KeyError, IndexError, TypeError, AttributeError):
        return 0.0, 0.0  # no log-probabilities, or none of this shape: the text decides
    return mass["yes"], mass["no"]


def _word(text: str) -> str:
    """The first word in lower case; blanks, quotes and other marks around it are no part of it."""
    match = re.search(r"[a-z]+", text.lower())
    return match[0] if match else ""


def _api_key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"option api_key_env={variable!r}: that environment variable is not set; "
            "export it where the job starts, or leave the option out"
        )
    return key


def _settings(model: str, seed: int, top_logprobs: int) -> dict[str, Any]:
    fixed = {"model": model, "seed": seed, "temperature": 0, "max_tokens": MAX_TOKENS}
    asked = {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
    return {**fixed, **asked}


def _check_seconds(**options: Any) -> None:
    for name, value in options.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"option {name}={value!r}: allowed are seconds above 0")


def _check_whole(least: int, **options: Any) -> None:
    for name, value in options.items():
        if type(value) is not int or value < least:
            raise ValueError(f"option {name}={value!r}: allowed is a whole number from {least}")
