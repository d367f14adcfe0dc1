"""Bounded calls of an OpenAI-compatible chat endpoint: every call ends, in an answer or a reason.

A call is tried again after a transport error, a timeout, an answer that makes no sense and the
statuses in `RETRIED`, as long as its retries and the common deadline allow, and not before the
server's `Retry-After`.
"""

import asyncio
import email.utils
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_RESPONSE_BYTES = 4_000_000
MAX_BACKOFF_S = 10.0
MAX_EXCERPT = 160

Parsed = TypeVar("Parsed")


class ChatError(RuntimeError):
    """The endpoint gave no usable answer; the message says why."""


class _TransientError(Exception):
    """This attempt failed and another may not; `after_s` is the server's wish, if it has one."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how patiently."""

    url: str
    """Of the `chat/completions` resource."""
    api_key: str
    """Bearer token; empty sends none. Never part of a reason."""
    timeout_s: float
    """Seconds an attempt may take, whole."""
    retries: int
    """Further attempts after a failed one."""
    backoff_s: float
    """Pause before the second attempt; doubles."""

    async def ask(
        self,
        http: httpx.AsyncClient,
        body: dict[str, Any],
        parse: Callable[[Any], Parsed],
        deadline: float,
    ) -> Parsed:
        """Post `body` and parse the answer; ChatError when it cannot by `deadline` (monotonic).

        `parse` raises ValueError for an answer that makes no sense.
        """
        for attempt in range(self.retries + 1):
            try:
                return parse(await self._attempt(http, body, deadline))
            except (_TransientError, ValueError, RecursionError) as error:
                reason = self._without_key(str(error))
                wished_s = error.after_s if isinstance(error, _TransientError) else None
            pause_s = min(self.backoff_s * 2**attempt, MAX_BACKOFF_S)
            if wished_s is not None:
                pause_s = max(wished_s, pause_s)
            if attempt == self.retries:
                break
            if time.monotonic() + pause_s >= deadline:
                raise ChatError(f"{reason}; the next try in {pause_s:.3g} s is past the deadline")
            await asyncio.sleep(pause_s)
        raise ChatError(f"{reason} (attempt {self.retries + 1} of {self.retries + 1})")

    async def _attempt(self, http: httpx.AsyncClient, body: dict[str, Any], deadline: float) -> Any:
        limit_s = min(self.timeout_s, deadline - time.monotonic())
        if limit_s <= 0:
            raise ChatError("no time was left to ask")
        try:
            # One limit for the whole exchange: httpx's own restart with every byte that drips in.
            async with asyncio.timeout(limit_s):
                status, headers, content = await self._post(http, body)
        except TimeoutError as error:
            raise _TransientError(f"no answer within {limit_s:.3g} s") from error
        except httpx.HTTPError as error:
            raise _TransientError(f"{type(error).__name__}: {error}") from error
        if status == 200:
            return json.loads(content)
        reason = f"status {status}: {content[:MAX_EXCERPT].decode(errors='replace').strip()}"
        if status in RETRIED:
            raise _TransientError(reason, retry_after_s(headers.get("retry-after", "")))
        raise ChatError(self._without_key(reason))

    async def _post(
        self, http: httpx.AsyncClient, body: dict[str, Any]
    ) -> tuple[int, httpx.Headers, bytes]:
        headers = {"accept-encoding": "identity"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        content = bytearray()
        async with http.stream("POST", self.url, json=body, headers=headers) as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_RESPONSE_BYTES:
                    raise _TransientError(f"the answer is over {MAX_RESPONSE_BYTES} bytes")
            return response.status_code, response.headers, bytes(content)

    def _without_key(self, reason: str) -> str:
        return reason.replace(self.api_key, "***") if self.api_key else reason


def retry_after_s(header: str, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it is neither."""
    if header.strip().isdigit():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)


def chat_url(base_url: str) -> str:
    """The chat resource under a base URL such as http://127.0.0.1:8000/v1; ValueError if no URL."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"option base_url={base_url!r} is no URL ({error})") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(
            f"option base_url={base_url!r}: write it as http://host:port/v1, without a query"
        )
    if url.userinfo:
        raise ValueError("option base_url holds a user or password; use api_key_env instead")
    return base_url.rstrip("/") + "/chat/completions"
