"""Counters for Prometheus. Labels are routes, versions and statuses, never what a caller wrote.

BentoML's own label each request by its path, which is the caller's: whatever stands in it would
be kept and shown, and every new path would be another series.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGES = ("read", "score", "log", "challenger")
LOG = "log"
"""The stage in which an answer waits for the disk."""
REFUSING = 400
Served = Collection[tuple[str, str, str]]
"""Model, version and pointer."""


class Metrics:
    """One set a worker process, made after BentoML has said where workers leave their figures."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        self._requests = self._timer(
            "request_seconds", "Requests: how many, and how long each took", "route", "status"
        )
        self._stages = self._timer(
            "stage_seconds", "What a prediction request is doing, and for how long", "stage"
        )
        which = ("model", "version")
        self._predictions = self._counter("predictions", "Instances answered", *which, "status")
        self._abstained = self._counter(
            "abstentions", "Instances not scored, by the rule that held them back", *which, "rule"
        )
        self._bands = self._counter("bands", "Instances scored, by band", *which, "band")
        self._shadow = self._counter(
            "challenger_requests",
            "Requests that the challenger answered, failed at or was too late for",
            *which,
            "fate",
        )
        self._breaches = self._counter(
            "additivity_breaches", "Explanations that do not add up to their risk: alarm on any", *which
        )
        self._refused = self._counter("refused_calls", "Calls answered with 4xx or 5xx", "status")
        self._unready = self._counter(
            "unready", "Times that a worker said it is not ready, and why", "reason"
        )
        self._served = self._gauge(
            "version_served", "Workers that answer with this version", "livesum", *which, "pointer"
        )
        self._faults = self._gauge(
            "version_faults", "Workers that cannot serve what is released", "livesum", "model", "pointer"
        )
        self._lag = self._gauge(
            "log_lag_seconds", "How long the oldest answer has waited for the disk", "livemax"
        )
        self._queue = self._gauge("log_waiting", "Answers that wait for the disk", "livesum")
        self._at_disk: dict[int, float] = {}
        self._tickets = itertools.count()
        self._shown: set[tuple[str, ...]] = set()
        self._failed: set[tuple[str, ...]] = set()
        self._stage_timers = {stage: self._stages.labels(stage) for stage in STAGES}

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).observe(seconds)
        if status >= REFUSING:
            self._refused.labels(status).inc()

    def begin(self, stage: str) -> int | None:
        """A ticket for :meth:`stage`, so that what still waits for the disk can be told."""
        if stage != LOG:
            return None
        ticket = next(self._tickets)
        self._at_disk[ticket] = time.perf_counter()
        return ticket

    def stage(self, stage: str, seconds: float, ticket: int | None = None) -> None:
        """A request has spent ``seconds`` in ``stage``, one of ``STAGES``."""
        if ticket is not None:
            self._at_disk.pop(ticket, None)
        timer = self._stage_timers.get(stage) or self._stages.labels(stage)
        timer.observe(seconds)

    def prediction(
        self,
        model: str,
        version: str,
        status: str,
        *,
        band: str | None = None,
        rules: Iterable[str] = (),
    ) -> None:
        """An instance was answered: in ``band``, or held back by ``rules``, as the spec names them."""
        self._predictions.labels(model, version, status).inc()
        if band is not None:
            self._bands.labels(model, version, band).inc()
        for rule in rules:
            self._abstained.labels(model, version, rule).inc()

    def breach(self, model: str, version: str, count: int = 1) -> None:
        """``count`` explanations did not add up."""
        self._breaches.labels(model, version).inc(count)

    def shadow(self, model: str, version: str, fate: str) -> None:
        """A request that the challenger ``answered``, ``failed`` at, or that was ``left out``."""
        self._shadow.labels(model, version, fate).inc()

    def unready(self, reason: str) -> None:
        """This worker was asked and is not ready: ``log``, ``model`` or ``nothing`` to serve."""
        self._unready.labels(reason).inc()

    def watch(self, served: Served, faults: Collection[tuple[str, str]]) -> None:
        """What stands now; to be called every second. ``faults``: model and pointer."""
        _stand(self._served, self._shown, set(served))
        for model, version, _ in served:  # an alarm needs a series that is there while nothing is wrong
            self._breaches.labels(model, version)
        _stand(self._faults, self._failed, set(faults))
        # Another thread may take one away meanwhile.
        waiting = list(self._at_disk.values())
        self._queue.set(len(waiting))
        self._lag.set(time.perf_counter() - min(waiting) if waiting else 0.0)

    def show(self) -> bytes:
        """The figures of all workers."""
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if not folder:
            return prometheus.generate_latest(self._registry)
        _bury(Path(folder))
        everyone = prometheus.CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # it has none
        return prometheus.generate_latest(everyone)

    def _counter(self, name: str, what: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(f"caremodels_{name}", what, labels, registry=self._registry)

    def _timer(self, name: str, what: str, *labels: str) -> prometheus.Histogram:
        return prometheus.Histogram(
            f"caremodels_{name}", what, labels, buckets=BUCKETS, registry=self._registry
        )

    def _gauge(self, name: str, what: str, over: Any, *labels: str) -> prometheus.Gauge:
        """``over``: how the figures of several workers become one."""
        return prometheus.Gauge(
            f"caremodels_{name}", what, labels, registry=self._registry, multiprocess_mode=over
        )


def _stand(gauge: prometheus.Gauge, before: set[tuple[str, ...]], now: set[tuple[str, ...]]) -> None:
    """1 for what is, 0 for what was; a series that ever was is never taken out of a worker's file."""
    for labels in before | now:
        gauge.labels(*labels).set(labels in now)
    before |= now


def _bury(folder: Path) -> None:
    """Forget what workers that were killed said of the present; what they counted remains."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with suppress(FileNotFoundError):  # another worker was first
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]  # as above


def pointed(champions: Mapping[str, Any], challengers: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is served, for :meth:`Metrics.watch`, of scorers by model."""
    named = (("champion", champions), ("challenger", challengers))
    return [(model, one.version, pointer) for pointer, by in named for model, one in by.items()]
