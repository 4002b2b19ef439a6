"""Counters for Prometheus. Labels are routes, versions and statuses, never what a caller wrote.

BentoML's own label each request by its path, which is the caller's: whatever stands in it would
be kept and shown, and every new path would be another series.
"""

from __future__ import annotations

import os

import prometheus_client as prometheus
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """One set a worker process, made after BentoML has said where workers leave their figures."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Histogram(
            "caremodels_request_seconds",
            "Requests: how many, and how long each took",
            ["route", "status"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._predictions = prometheus.Counter(
            "caremodels_predictions",
            "Instances answered",
            ["model", "version", "status"],
            registry=self._registry,
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).observe(seconds)

    def prediction(self, model: str, version: str, status: str) -> None:
        self._predictions.labels(model, version, status).inc()

    def show(self) -> bytes:
        """The figures of all workers."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            everyone = prometheus.CollectorRegistry()
            MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # it has none
            return prometheus.generate_latest(everyone)
        return prometheus.generate_latest(self._registry)
