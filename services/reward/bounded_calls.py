"""Calls of another service over HTTP, bounded: every call ends, in an answer or a reason.

A call is tried again after a transport error, a timeout, an answer that makes no sense and the
statuses in `RETRIED`, as long as its retries and the common deadline allow, and not before the
server's `Retry-After`.
"""

import asyncio
import email.utils
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx

from services.web.outbound import address_info

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_BACKOFF_S = 10.0
MAX_EXCERPT = 160
MIN_SECRET = 8
"""Letters from which a key is hidden in good answers too: a shorter one may be a word of theirs."""

Parsed = TypeVar("Parsed")
Result = TypeVar("Result")


class CallError(RuntimeError):
    """The service gave no usable answer; the message says why."""


class TransientError(Exception):
    """This attempt failed and another may not; `after_s` is the server's wish, if it has one."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True)
class Reply:
    """What came back, read whole."""

    status: int
    headers: httpx.Headers
    content: bytes


Send = Callable[[float], Awaitable[Reply]]
"""One attempt; it is told when its time is out, by `time.monotonic`."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a service is asked for one answer."""

    timeout_s: float
    """Seconds an attempt may take, whole."""
    retries: int
    """Further attempts after a failed one."""
    backoff_s: float
    """Pause before the second attempt; doubles."""

    async def ask(
        self,
        send: Send,
        parse: Callable[[bytes], Parsed],
        deadline: float,
        secret: str = "",
    ) -> Parsed:
        """Send and parse the answer; CallError when that fails by `deadline` (monotonic).

        `send` is told when its attempt ends, by the same clock. `parse` raises ValueError for an
        answer that makes no sense. `secret` stays out of reasons.
        """
        for attempt in range(self.retries + 1):
            try:
                return parse(await self._attempt(send, deadline, secret))
            except CallError as error:
                raise CallError(_hidden(str(error), secret)) from None
            except (TransientError, ValueError, RecursionError) as error:
                reason = _hidden(str(error), secret)
                wished_s = error.after_s if isinstance(error, TransientError) else None
            pause_s = min(self.backoff_s * 2**attempt, MAX_BACKOFF_S)
            if wished_s is not None:
                pause_s = max(wished_s, pause_s)
            if attempt == self.retries:
                break
            if time.monotonic() + pause_s >= deadline:
                raise CallError(f"{reason}; the next try in {pause_s:.3g} s is past the deadline")
            await asyncio.sleep(pause_s)
        raise CallError(f"{reason} (attempt {self.retries + 1} of {self.retries + 1})")

    async def _attempt(self, send: Send, deadline: float, secret: str) -> bytes:
        limit_s = min(self.timeout_s, deadline - time.monotonic())
        if limit_s <= 0:
            raise CallError("no time was left to ask; raise budget_s or lower batch_size")
        try:
            # One limit for the whole exchange: httpx's own restart with every byte that drips in.
            async with asyncio.timeout(limit_s):
                reply = await send(time.monotonic() + limit_s)
        except TimeoutError as error:
            raise TransientError(
                f"no answer within {limit_s:.3g} s; raise timeout_s or see why the service is slow"
            ) from error
        except httpx.HTTPError as error:
            raise TransientError(f"{type(error).__name__}: {error}") from error
        if reply.status == 200:
            return _without(reply.content, secret if len(secret) >= MIN_SECRET else "")
        if 300 <= reply.status < 400:
            raise CallError(f"status {reply.status}: redirects are not followed; correct the URL")
        # Hidden before anything is cut: what a cut leaves of a secret is not found any more.
        content = _without(reply.content, secret)
        excerpt = content[:MAX_EXCERPT].decode(errors="replace").strip()
        reason = f"status {reply.status}: {excerpt}"
        if reply.status in RETRIED:
            raise TransientError(reason, retry_after_s(reply.headers.get("retry-after", "")))
        raise CallError(reason)


def run_calls(calls: Coroutine[Any, Any, Result]) -> Result:
    """As asyncio.run, which would wait at its end for name look-ups that nobody awaits any more."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(calls)


class _Loop(asyncio.SelectorEventLoop):
    async def getaddrinfo(self, host: Any, port: Any, **hints: int) -> Any:
        return await address_info(host, port, **hints)


async def read_reply(response: httpx.Response, max_bytes: int) -> Reply:
    """Read an answer to its end, as it is on the wire; TransientError if it is over `max_bytes`."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > max_bytes:
            raise TransientError(f"the answer is over {max_bytes} bytes")
    return Reply(response.status_code, response.headers, bytes(content))


def retry_after_s(header: str, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it is neither."""
    if header.strip().isdecimal():
        return float(header)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - (now or datetime.now(UTC))).total_seconds(), 0.0)


def _without(content: bytes, secret: str) -> bytes:
    """What came, the secret hidden however JSON may escape its (ASCII) characters."""
    if not secret:
        return content
    return re.sub("".join(map(_spellings, secret)).encode(), b"***", content)


def _spellings(letter: str) -> str:
    """A pattern of the letter as it is and as JSON may escape it."""
    backslash = r"\\?" if letter in '"\\/' else ""
    return rf"(?:(?i:\\u{ord(letter):04x})|{backslash}{re.escape(letter)})"


def _hidden(reason: str, secret: str) -> str:
    return reason.replace(secret, "***") if secret else reason
