"""How often somebody may do something: token buckets in the memory of this process."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from services.web.clock import Clock
from services.web.problems import Problem

MAX_BUCKETS = 10_000


class Rate(BaseModel):
    """So many in so long; as many at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num: int = Field(ge=1)
    per_s: float = Field(gt=0)


@dataclass
class _Bucket:
    tokens: float
    at: datetime


class RateLimiter:
    """Buckets by (rate's name, whose). The least recently used go first when there are too many."""

    def __init__(self, rates: Mapping[str, Rate | None], clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, whose: str, num: int = 1) -> None:
        """Use `num` up; 429 with Retry-After where there are not so many. More than fit are let
        through when all are there, and waited for afterwards. No rate is no limit."""
        rate = self._rates.get(name)
        if rate is None:
            return
        bucket = self._refilled((name, whose), rate)
        needed = min(num, rate.num)
        if bucket.tokens < needed:
            wait_s = math.ceil((needed - bucket.tokens) * rate.per_s / rate.num)
            detail = f"{name}: at most {rate.num} in {rate.per_s:g} s; try again in {wait_s} s"
            headers = {"Retry-After": str(wait_s)}
            raise Problem(429, "too-many-requests", "Too many requests", detail, headers=headers)
        bucket.tokens -= num

    def _refilled(self, key: tuple[str, str], rate: Rate) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(rate.num, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        gone_s = max(0.0, (now - bucket.at).total_seconds())
        bucket.tokens = min(rate.num, bucket.tokens + gone_s * rate.num / rate.per_s)
        bucket.at = now
        return bucket


def limited(name: str, *roles: str) -> Any:
    """`dependencies=[limited("claim")]`: one of the settings' rates by principal; only for `roles`
    where some are named. The principal is known before a route's dependencies run."""

    async def check(request: Request) -> None:  # a plain function would be sent to a thread
        charge(request, name, *roles)

    return Depends(check)


def charge(request: Request, name: str, *roles: str, num: int = 1) -> None:
    """`limited`, for a route that knows only from the body how much it uses up."""
    principal = request.state.principal
    if not roles or principal.role in roles:
        request.app.state.limiter.take(name, principal.key_id, num)
