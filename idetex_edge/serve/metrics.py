"""What is counted, for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_SECONDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "idetex_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.latency = Histogram(
            "idetex_request_seconds",
            "From a request's first byte to its answer's last.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.service = Histogram(
            "idetex_picture_seconds",
            "A worker's time for one picture.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.given_up = Counter(
            "idetex_pictures_given_up",
            "Pictures stopped because their client left or their deadline passed.",
            registry=registry,
        )
        self.waiting = Gauge(
            "idetex_pictures_waiting", "Pictures waiting for a worker.", registry=registry
        )
        self.working = Gauge(
            "idetex_pictures_working", "Pictures being worked on.", registry=registry
        )

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)
