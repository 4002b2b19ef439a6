"""How good the answers were, where the outcome is known by now.

Under ``FEWEST_OUTCOMES`` outcomes or ``FEWEST_EVENTS`` of the rarer one the measures are null with
a reason: their intervals would cover everything. Calibration is an alarm when the whole 95 %
interval of observed/expected or of the slope lies outside the spec's limits, so that neither a
small window nor a small miscalibration raises one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import metrics
from models.spec import ModelSpec
from monitoring.window import Window

FEWEST_OUTCOMES = 50
FEWEST_EVENTS = 10
MEASURES = ("auroc", "auprc", "brier", "calibration", "intervals")
HELD = {"oe": "observed/expected", "slope": "the calibration slope"}
_RESAMPLED = 10_000_000
"""Rows drawn by the bootstrap in all: 500 samples up to 20,000 rows, fewer of more, where the
interval is narrow whatever their number."""


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A calibration measure whose interval lies outside its limits."""

    measure: str
    value: float
    low: float
    high: float
    limits: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{HELD[self.measure]} is {self.value:.2f} ({self.low:.2f} to {self.high:.2f}), "
            f"outside {self.limits[0]:g} to {self.limits[1]:g}"
        )


def measure(
    window: Window, spec: ModelSpec, *, at_promotion: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """``{n, events, reason, auroc, auprc, brier, calibration, intervals, at_promotion}``.

    Either ``reason`` is null or the measures are. Intervals resample patients; a row that names none
    stands alone. ``at_promotion``: what the version's ``evaluation.json`` holds.
    """
    n, events = len(window.outcome), int(window.outcome.sum())
    then = None
    if at_promotion is not None:
        then = {name: at_promotion.get(name) for name in ("n", "events", *MEASURES)}
        then["intervals"] = _held(then["intervals"])
    known: dict[str, Any] = {"n": n, "events": events, "reason": None}
    if n < FEWEST_OUTCOMES or min(events, n - events) < FEWEST_EVENTS:
        reason = (
            f"{n} outcomes are known, {min(events, n - events)} of the rarer kind; "
            f"at least {FEWEST_OUTCOMES} and {FEWEST_EVENTS} are needed"
        )
        return {**known, "reason": reason, **dict.fromkeys(MEASURES), "at_promotion": then}
    evaluation = metrics.evaluate(
        window.outcome,
        window.risk,
        threshold=spec.alert_at,
        cluster=window.patient,
        bootstrap=max(100, min(500, _RESAMPLED // n)),
    )
    figures = metrics.as_dict(evaluation)
    kept = {name: figures[name] for name in MEASURES[:-1]}
    kept["intervals"] = _held(figures["intervals"])
    return {**known, **kept, "at_promotion": then}


def _held(intervals: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Of the measures that may raise an alarm."""
    return {name: intervals[name] for name in HELD if name in intervals} if intervals else None


def breaches(measured: Mapping[str, Any], spec: ModelSpec) -> list[Breach]:
    """The calibration measures to raise an alarm over."""
    found = []
    for name, limits in (("oe", spec.limits.oe), ("slope", spec.limits.slope)):
        span = (measured["intervals"] or {}).get(name)
        if span is None or span["low"] is None:
            continue
        if span["low"] > limits[1] or span["high"] < limits[0]:
            value = measured["calibration"][name]
            found.append(Breach(measure=name, value=value, limits=limits, **span))
    return found
