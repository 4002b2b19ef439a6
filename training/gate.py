"""May this version answer for patients? Each criterion with its figure and its limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.spec import Limits
from training.evaluate import LOGISTIC


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One criterion. ``value`` is None where the figure could not be computed: not passed."""

    criterion: str
    value: float | None
    limit: str
    passed: bool


def judge(figures: Mapping[str, Any], limits: Limits) -> list[Finding]:
    """Hold the figures of the test period to the spec's limits."""
    calibration = figures["calibration"]
    gain = figures["comparators"][LOGISTIC]["model_minus_this"]["auroc"]["value"]
    return [
        _at_least("events in the test period", figures["events"], limits.events),
        _within("calibration slope", calibration["slope"], limits.slope),
        _within("observed over expected", calibration["oe"], limits.oe),
        _at_least("AUROC over logistic regression", gain, limits.auroc_over_logistic),
    ]


def _at_least(criterion: str, value: float | None, limit: float) -> Finding:
    passed = value is not None and value >= limit
    return Finding(criterion=criterion, value=value, limit=f"at least {limit:g}", passed=passed)


def _within(criterion: str, value: float | None, limit: tuple[float, float]) -> Finding:
    passed = value is not None and limit[0] <= value <= limit[1]
    return Finding(
        criterion=criterion, value=value, limit=f"{limit[0]:g} to {limit[1]:g}", passed=passed
    )
