"""Your own scorer over HTTP: a batch of images a request, a value an image back.

Requests reach only hosts on the config's list, at addresses that were checked, over no proxy and no
redirect; both are bounded in bytes, an answer in time too and held to services/reward/http_wire.py.
"""

import hashlib
import json
import ssl
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import httpx
from pydantic import ValidationError

from services.config_keys import readable
from services.reward.bounded_calls import (
    CallError,
    Patience,
    Reply,
    TransientError,
    read_reply,
    run_calls,
)
from services.reward.chat_client import png_bytes
from services.reward.contract import Answer, RewardInput, Verdict
from services.reward.http_wire import PROTOCOL, ScoreItem, ScoreRequest, ScoreResponse
from services.reward.option_checks import api_key, check_seconds, check_whole
from services.web import outbound

MAX_FAULT = 300


class HttpScorer:
    """Sends batches to one URL; groupwise if the config says so."""

    def __init__(
        self,
        url: str,
        allowed_hosts: Sequence[str],
        allow_private: bool = False,
        groupwise: bool = False,
        scorer_version: str | None = None,
        api_key_env: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 20.0,
        retries: int = 2,
        backoff_s: float = 0.5,
        budget_s: float = 45.0,
        max_request_bytes: int = 256_000_000,
        max_response_bytes: int = 4_000_000,
    ) -> None:
        """See docs/rewards.md; `budget_s` bounds a batch, and is below the deadline_s."""
        check_seconds(timeout_s=timeout_s, budget_s=budget_s, backoff_s=backoff_s)
        check_whole(0, retries=retries)
        check_whole(1, max_request_bytes=max_request_bytes, max_response_bytes=max_response_bytes)
        self._rules = _rules(allowed_hosts, allow_private)
        try:
            outbound.check_url(url, self._rules)
        except outbound.ForbiddenUrlError as error:
            raise ValueError(f"option url: {error}") from error
        self._url = url
        self._key = api_key(api_key_env)
        self._ca_file = _ca_file(ca_file)
        self._patience = Patience(timeout_s, retries, backoff_s)
        self.budget_s = budget_s
        self._max_request_bytes, self._max_bytes = max_request_bytes, max_response_bytes
        self._groupwise = groupwise
        self._expected = scorer_version
        self.requires = ("prompt", "image", "group") if groupwise else ("prompt", "image")
        asked = repr((url, groupwise, scorer_version)).encode()
        self.version = f"{PROTOCOL}:{hashlib.sha256(asked).hexdigest()[:8]}"

    def evaluate(
        self, batch: list[RewardInput] | list[list[RewardInput]]
    ) -> list[Answer] | list[list[Answer]]:
        """The scorer's value of every image; without a usable answer none has one."""
        units = [item if isinstance(item, list) else [item] for item in batch]
        answers = run_calls(self._score(units))
        if not self._groupwise:
            return answers
        ends = list(accumulate(map(len, units)))
        return [answers[end - len(unit) : end] for unit, end in zip(units, ends, strict=True)]

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        """Every address of a host, as the system's resolver has them."""
        return await outbound.look_up(host, port)

    async def _score(self, units: list[list[RewardInput]]) -> list[Answer]:
        deadline = time.monotonic() + self.budget_s
        count = sum(map(len, units))
        async with outbound.outbound_client(None, self._ca_file) as http:
            try:
                content, form = self._body(units)
                return await self._patience.ask(
                    lambda ends: self._send(http, content, form, ends),
                    lambda answer: self._answers(answer, count),
                    deadline,
                    self._key,
                )
            except CallError as error:
                return [Verdict(None, reason=str(error))] * count

    def _body(self, units: list[list[RewardInput]]) -> tuple[bytes, str]:
        """A request's content and its type; CallError where it is too long."""
        body = httpx.Request("POST", self._url, files=_parts(units, self._groupwise))
        content = body.read()
        if len(content) > self._max_request_bytes:
            raise CallError(
                f"not sent: {len(content)} bytes for {sum(map(len, units))} images are over "
                f"max_request_bytes={self._max_request_bytes}; lower batch_size, or raise it if "
                "the scorer takes as many"
            )
        return content, body.headers["content-type"]

    async def _send(self, http: httpx.AsyncClient, content: bytes, form: str, ends: float) -> Reply:
        headers = {"Content-Type": form, "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        url = outbound.check_url(self._url, self._rules)
        try:
            # Looked up for every attempt: what was checked at the start may point elsewhere now.
            target = await outbound.resolve(url, self._rules, self.look_up)
        except outbound.UnresolvedHostError as error:
            raise TransientError(str(error)) from error
        except outbound.ForbiddenUrlError as error:
            raise CallError(f"not sent: {error}") from error
        response = await outbound.send(http, target, content, headers, ends)
        try:
            return await read_reply(response, self._max_bytes)
        finally:
            await response.aclose()

    def _answers(self, content: bytes, count: int) -> list[Answer]:
        try:
            response = ScoreResponse.model_validate(json.loads(content))
        except ValidationError as error:
            first, *more = readable(error, "the scorer's answer").splitlines()
            others = f" (and {len(more)} more)" if more else ""
            raise ValueError(first[:MAX_FAULT] + others) from None
        if len(response.answers) != count:
            raise ValueError(f"the scorer gave {len(response.answers)} answers for {count} images")
        if self._expected not in (None, response.version):
            raise CallError(
                f"the scorer is version {response.version!r}, not scorer_version="
                f"{self._expected!r}; values of two versions do not mix in one run"
            )
        return [
            Verdict(answer.value, answer.parts, answer.reason, response.version)
            for answer in response.answers
        ]


def _rules(allowed_hosts: Sequence[str], allow_private: bool) -> outbound.OutboundRules:
    if not isinstance(allowed_hosts, list | tuple) or not all(
        isinstance(host, str) for host in allowed_hosts
    ):
        raise ValueError(
            f'option allowed_hosts={allowed_hosts!r}: write a list, such as ["scorer.example.com"]'
        )
    return outbound.OutboundRules(tuple(allowed_hosts), allow_private, "allowed_hosts")


def _ca_file(ca_file: str | None) -> Path | None:
    """The file, absolute and found to hold certificates."""
    if ca_file is None:
        return None
    path = Path(ca_file).expanduser().absolute()
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(
            f"option ca_file={ca_file!r}: {error}; give a PEM file that lies where the workers run"
        ) from error
    return path


def _parts(
    units: list[list[RewardInput]], groupwise: bool
) -> list[tuple[str, tuple[str, bytes, str]]]:
    """The multipart parts: the request as a file of its own, so that no field limit meets it."""
    items = [(group, item) for group, unit in enumerate(units) for item in unit]
    request = ScoreRequest(
        protocol=PROTOCOL,
        groupwise=groupwise,
        items=[
            ScoreItem(
                image=f"image_{place}",
                prompt=item.prompt.text,
                prompt_id=item.prompt.prompt_id,
                metadata=dict(item.prompt.metadata),
                group=group,
            )
            for place, (group, item) in enumerate(items)
        ],
    )
    document = request.model_dump_json().encode()
    pictures = [
        (f"image_{place}", (f"image_{place}.png", png_bytes(item.image), "image/png"))
        for place, (_, item) in enumerate(items)
    ]
    return [("request", ("request.json", document, "application/json")), *pictures]
