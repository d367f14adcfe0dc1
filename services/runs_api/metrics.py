"""What this process counts for Prometheus."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

REGISTRY = CollectorRegistry()

http_request_duration = Histogram(
    "tdmr1_http_request_duration_seconds",
    "Time from the request's head to the end of its answer.",
    ("route", "method", "status"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
sse_clients = Gauge("tdmr1_sse_clients", "Event streams that are open.", registry=REGISTRY)


def observe_request(route: str, method: str, status: int, seconds: float) -> None:
    """One request is over."""
    http_request_duration.labels(route, method, str(status)).observe(seconds)
