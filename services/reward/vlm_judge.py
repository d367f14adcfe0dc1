"""A vision language model as a judge, asked over an OpenAI-compatible chat endpoint.

yes_no   p(yes) / (p(yes) + p(no)), from the first word's log-probabilities; 1 or 0 by its text
         where the server gives none
score    a number in JSON, held to a schema
rubric   the weighted mean of several such answers
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from services.reward.bounded_calls import CallError, Patience, run_calls
from services.reward.chat_answers import answer_of, instructions, request_fields
from services.reward.chat_client import ChatEndpoint, chat_url, user_message
from services.reward.contract import Answer, RewardInput, Verdict
from services.reward.judge_questions import AnswerCache, Criterion, image_digest, read_questions
from services.reward.option_checks import api_key, check_seconds, check_whole

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Round:
    """What all requests of one batch share."""

    http: httpx.AsyncClient
    slots: asyncio.Semaphore
    deadline: float
    asked: dict[Key, asyncio.Task[Verdict]] = field(default_factory=dict)
    """Equal images of one batch are one request."""


class VlmJudge:
    """Asks about every image, several at a time, and remembers the answers."""

    requires = ("prompt", "image")

    def __init__(
        self,
        base_url: str,
        model: str,
        mode: str = "yes_no",
        question: str | None = None,
        scale: Mapping[str, Any] | None = None,
        rubric: Sequence[Mapping[str, Any]] | None = None,
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
        """See docs/rewards.md; `budget_s` bounds a batch, and is below the deadline_s."""
        check_seconds(timeout_s=timeout_s, budget_s=budget_s, backoff_s=backoff_s)
        check_whole(0, retries=retries, cache_size=cache_size, top_logprobs=top_logprobs)
        check_whole(1, max_concurrency=max_concurrency)
        self._questions = read_questions(mode, question, scale, rubric)
        self._instructions = instructions(self._questions.scale)
        self._endpoint = ChatEndpoint(chat_url(base_url), api_key(api_key_env))
        self._patience = Patience(timeout_s, retries, backoff_s)
        self.budget_s = budget_s
        self._max_concurrency = max_concurrency
        self._cache = AnswerCache(cache_size)
        self._top_logprobs = top_logprobs
        self._fixed = {"model": model, "seed": seed, "temperature": 0}
        self._extra = dict(extra_body or {})
        settings = {**self._fixed, "top_logprobs": top_logprobs, **self._extra}
        self.version = self._questions.version(model, settings)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The judge's verdict on every image; an image it did not judge has no value."""
        return run_calls(self._evaluate(batch))

    async def _evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        deadline = time.monotonic() + self.budget_s
        # trust_env off: only the config says where images go, no proxy variable does.
        async with httpx.AsyncClient(timeout=None, trust_env=False) as http:
            shared = _Round(http, asyncio.Semaphore(self._max_concurrency), deadline)
            return await asyncio.gather(*(self._judge(shared, item) for item in batch))

    async def _judge(self, shared: _Round, item: RewardInput) -> Verdict:
        digest = image_digest(item.image)
        answers = (
            self._answer(shared, item, digest, criterion) for criterion in self._questions.criteria
        )
        return self._questions.combine(await asyncio.gather(*answers))

    async def _answer(
        self, shared: _Round, item: RewardInput, digest: str, criterion: Criterion
    ) -> Verdict:
        key = (digest, item.prompt.text, criterion.name, self.version)
        known = self._cache.get(key)
        if known is not None:
            return known
        if key not in shared.asked:
            shared.asked[key] = asyncio.create_task(self._ask(shared, item, criterion, key))
        return await shared.asked[key]

    async def _ask(
        self, shared: _Round, item: RewardInput, criterion: Criterion, key: Key
    ) -> Verdict:
        try:
            async with shared.slots:
                body = self._body(item, criterion)
                answer = await self._patience.ask(
                    lambda _: self._endpoint.send(shared.http, body),
                    lambda content: answer_of(content, criterion.mode, self._questions.scale),
                    shared.deadline,
                    self._endpoint.api_key,
                )
        except CallError as error:
            return Verdict(None, reason=str(error))
        self._cache.put(key, answer)
        return answer

    def _body(self, item: RewardInput, criterion: Criterion) -> dict[str, Any]:
        text = self._questions.text(criterion, item.prompt, self._instructions)
        return {
            "messages": [user_message(item.image, text)],
            **self._fixed,
            **request_fields(criterion.mode, self._questions.scale, self._top_logprobs),
            **self._extra,
        }
