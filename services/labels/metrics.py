"""What this process counts for Prometheus; what the database knows is in scrape.py.

No label of a metric names a person, a prompt or a group.
"""

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.web.scraping import request_histogram, stream_gauge

REGISTRY = CollectorRegistry()

observe_request = request_histogram(REGISTRY)
labels_received = Counter(
    "tdmr1_labels_received_total",
    "Labels written.",
    ("value", "source"),
    registry=REGISTRY,
)
labels_rejected = Counter(
    "tdmr1_labels_rejected_total",
    "Labels refused, by the problem's code.",
    ("reason",),
    registry=REGISTRY,
)
label_latency = Histogram(
    "tdmr1_label_latency_seconds",
    "Time that a person looked before the verdict.",
    registry=REGISTRY,
    buckets=(0.25, 0.5, 1, 2, 4, 8, 15, 30, 60),
)
label_commit = Histogram(
    "tdmr1_label_commit_seconds",
    "Time from handing labels to the writer until they are on the disk.",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
leases_expired = Counter(
    "tdmr1_leases_expired", "Leases that ended by their time.", registry=REGISTRY
)
group_ready_age = Histogram(
    "tdmr1_group_ready_age_seconds",
    "How long a group's rewards waited for the trainer.",
    registry=REGISTRY,
    buckets=(1, 5, 15, 60, 300, 900, 3600, 14400, 86400),
)
reward_redeliveries = Counter(
    "tdmr1_reward_redeliveries", "Reward messages handed out again.", registry=REGISTRY
)
reward_dead_letters = Counter(
    "tdmr1_reward_dead_letters", "Reward messages given up.", registry=REGISTRY
)
sse_clients = stream_gauge(REGISTRY)
webhook_deliveries = Counter(
    "tdmr1_webhook_deliveries", "Attempts to deliver events.", ("outcome",), registry=REGISTRY
)
build_info = Gauge("tdmr1_build_info", "1, with the version.", ("version",), registry=REGISTRY)


try:
    build_info.labels(version("tdm-r1")).set(1)
except PackageNotFoundError:  # Run from a checkout that was never installed.
    build_info.labels("unknown").set(1)
