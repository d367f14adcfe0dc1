"""What this process counts for Prometheus; what runs tell is in scrape.py."""

from prometheus_client import CollectorRegistry

from services.web.scraping import request_histogram, stream_gauge

REGISTRY = CollectorRegistry()

observe_request = request_histogram(REGISTRY)
sse_clients = stream_gauge(REGISTRY)
