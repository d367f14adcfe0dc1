"""Metrics for Prometheus: what every service counts of its requests, who may scrape, the text."""

import hmac
from collections.abc import Iterator, Sequence

from fastapi import Request
from prometheus_client import CollectorRegistry, Gauge, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

from services.web.hosts import LOOPBACK
from services.web.middleware import Observe
from services.web.problems import Problem


def request_histogram(registry: CollectorRegistry) -> Observe:
    """Counts requests by route, method and status; call it for each that is over."""
    duration = Histogram(
        "tdmr1_http_request_duration_seconds",
        "Time from the request's head to the end of its answer.",
        ("route", "method", "status"),
        registry=registry,
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    )

    def observe(route: str, method: str, status: int, seconds: float) -> None:
        duration.labels(route, method, str(status)).observe(seconds)

    return observe


def stream_gauge(registry: CollectorRegistry) -> Gauge:
    """Event streams that are open."""
    return Gauge("tdmr1_sse_clients", "Event streams that are open.", registry=registry)


class Scrape(Collector):
    """What the process counts, then what is looked up at each scrape."""

    def __init__(self, registry: CollectorRegistry, known: Sequence[Metric]) -> None:
        self._registry = registry
        self._known = known

    def collect(self) -> Iterator[Metric]:
        """As Prometheus' client asks for it."""
        yield from self._registry.collect()
        yield from self._known

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self)


def check_scraper(request: Request) -> None:
    """401 unless it is asked from this machine, or with the settings' scrape token."""
    token = request.app.state.settings.scrape_token
    given = request.headers.get("authorization", "")
    if token is not None and hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return
    # What a proxy on this machine passes on comes from elsewhere.
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for"))
    if forwarded or request.client is None or request.client.host not in LOOPBACK:
        detail = "ask from this machine, or send the scrape token: Authorization: Bearer ..."
        raise Problem(401, "unauthenticated", "Metrics are closed", detail)
