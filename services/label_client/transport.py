"""Requests that end: bounded retries of one and the same request, with one Idempotency-Key.

A request is sent again when no answer came (it may or may not have been carried out: the key makes
that harmless) and after the statuses in `RETRIED`, not before the server's `Retry-After`.
"""

import re
import ssl
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import httpx

from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError

RETRIED = frozenset({429, 502, 503, 504})
STILL_RUNNING = "idempotency-key-running"
MAX_BACKOFF_S = 10.0
MAX_RETRY_AFTER_S = 60.0


class Transport:
    """One connection pool, one key; safe for use from several threads."""

    def __init__(
        self,
        url: str,
        key: str,
        timeout_s: float,
        retries: int,
        backoff_s: float,
        http: httpx.BaseTransport | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=timeout_s,
            transport=http,
            verify=_trusted(),
            follow_redirects=False,  # a key must not follow a redirect to another host
        )
        self._timeout_s = timeout_s
        self._retries = retries
        self._backoff_s = backoff_s
        self._sleep = sleep

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> httpx.Response:
        """The answer if it is a success; LabelServiceError has the others' problem.

        `wait_s` is how long the server was asked to hold the request, on top of the time limit.
        """
        extra = dict(headers or {})
        if method == "POST":
            extra.setdefault("Idempotency-Key", str(uuid.uuid4()))
        request = self._http.build_request(
            method,
            f"/api/v1{path}",
            json=json,
            content=content,
            params={k: v for k, v in (params or {}).items() if v is not None},
            headers=extra,
            timeout=self._timeout_s + wait_s,
        )
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                response = self._http.send(request)
            except httpx.TransportError as error:
                if last or isinstance(error, httpx.UnsupportedProtocol):
                    raise LabelServiceUnreachableError(
                        f"{method} {request.url}: {type(error).__name__} {error} "
                        f"(attempt {attempt + 1} of {attempt + 1}); is the label service up?"
                    ) from error
                self._sleep(self._pause_s(attempt, None))
                continue
            if response.is_success:
                return response
            refusal = _refusal(response)
            if last or not (response.status_code in RETRIED or refusal.code == STILL_RUNNING):
                raise refusal
            self._sleep(self._pause_s(attempt, response.headers.get("retry-after")))
        raise AssertionError("the last attempt returns or raises")

    def _pause_s(self, attempt: int, retry_after: str | None) -> float:
        pause_s = min(self._backoff_s * 2**attempt, MAX_BACKOFF_S)
        if re.fullmatch("[0-9]{1,6}", (retry_after or "").strip()):
            pause_s = max(pause_s, min(float(str(retry_after)), MAX_RETRY_AFTER_S))
        return pause_s


@cache
def _trusted() -> ssl.SSLContext:
    """Made once: it takes as long as a hundred requests."""
    return ssl.create_default_context()


def _refusal(response: httpx.Response) -> LabelServiceError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        # A proxy's page, or not the label service at all.
        problem = {"code": "not-a-problem", "detail": response.text[:200]}
    return LabelServiceError(problem, response.status_code)
