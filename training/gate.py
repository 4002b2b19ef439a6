"""May this version answer for patients? Each criterion with its figure and its limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.artifact import LOGISTIC, TREES
from models.spec import Limits, ModelSpec

ROUNDING = 1e-9
"""A model that alerts on everybody has the net benefit of treating all, but for the last bits."""
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One criterion. ``value`` is None where the figure could not be computed: not passed."""

    criterion: str
    value: float | None
    limit: str
    passed: bool


def judge(figures: Mapping[str, Any], spec: ModelSpec) -> list[Finding]:
    """Hold the figures of the test rows (``evaluation.json``) to the spec's limits.

    A figure that is null, or is not there, fails. Against the champion a version is held where
    ``figures`` has a ``champion``: the paired difference in AUROC on the same rows, or ``why`` there is
    none. Of a version that was recalibrated for a site, observed over expected there is held as well.
    """
    limits = spec.limits
    rival = TREES if spec.learner == "logistic" else LOGISTIC
    return [
        _at_least("events in the test period", figures.get("events"), limits.events),
        _at_least("AUROC", _figure(figures, "auroc", "value"), limits.auroc),
        _within("calibration slope", _figure(figures, "calibration", "slope"), limits.slope),
        _within("calibration intercept", _figure(figures, "calibration", "intercept"), limits.intercept),
        _within("observed over expected", _figure(figures, "calibration", "oe"), limits.oe),
        _at_least(
            f"AUROC over {rival.replace('_', ' ')}, lower 95 % bound",
            _figure(figures, "comparators", rival, "model_minus_this", "auroc", "low"),
            0.0 - limits.logistic_margin,
        ),
        *_against_champion(figures, limits),
        *_subgroups(figures, spec),
        _net_benefit(figures, spec),
        _at_most(
            "alerts per 100", _figure(figures, "at_threshold", "alerts_per_100"), limits.alerts_per_100
        ),
        *_where_declared(figures, spec),
        *_recalibrated(figures, limits),
    ]


def _against_champion(figures: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    champion = figures.get("champion")
    if champion is None:
        return
    found = _at_least(
        f"AUROC over the champion, version {champion['version']}, lower 95 % bound",
        _figure(champion, "auroc", "low"),
        0.0 - limits.champion_margin,
    )
    why = champion.get("why")
    limit = f"{found.limit}; it cannot be told: {why}" if why else found.limit
    yield Finding(criterion=found.criterion, value=found.value, limit=limit, passed=found.passed)


def _subgroups(figures: Mapping[str, Any], spec: ModelSpec) -> Iterator[Finding]:
    """The worst of the groups that are large enough to be held."""
    limits = spec.limits
    if not spec.subgroups:
        return
    held = [
        row
        for row in figures.get("groups") or ()
        if not row["suppressed"] and (row["events"] or 0) >= limits.subgroup_events
    ]
    size = f"in each subgroup of {limits.subgroup_events} events or more"

    def worst(name: str, of: Callable[[Any], Any], ease: Callable[[float], float]) -> tuple[str, Any]:
        if not held:
            return f"{name} of the worst subgroup (none is large enough)", None

        def eased(row: Mapping[str, Any]) -> float:
            return -math.inf if of(row) is None else ease(of(row))

        row = min(held, key=eased)
        return f"{name} of the worst subgroup ({row['group']}: {row['level']})", of(row)

    name, value = worst("AUROC", lambda row: _figure(row, "auroc", "value"), float)
    yield _at_least(name, value, limits.subgroup_auroc, more=size)
    low, high = limits.subgroup_oe
    name, value = worst(
        "observed over expected",
        lambda row: row["oe"],
        # As a ratio: half as many as expected is as far off as twice as many.
        lambda oe: min(oe / low, high / oe) if oe > 0 else 0.0,
    )
    yield _within(name, value, limits.subgroup_oe, more=size)


def _net_benefit(figures: Mapping[str, Any], spec: ModelSpec) -> Finding:
    low, high = spec.benefit
    curve: Sequence[Mapping[str, Any]] = _figure(figures, "net_benefit", "curve") or ()
    at = [row["threshold"] for row in curve]
    within = [row for row in curve if low - ROUNDING <= row["threshold"] <= high + ROUNDING]
    gains = [_gain(row) for row in within]
    # The curve was drawn over the range that was declared then: a wider one is not covered by it.
    covered = bool(gains) and min(at) <= low + ROUNDING and max(at) >= high - ROUNDING
    least = min(gains) if covered and not any(map(math.isnan, gains)) else math.nan
    return Finding(
        criterion="net benefit above treating all or none, the least",
        value=None if math.isnan(least) else least,
        limit=f"at least 0 over thresholds of {low:g} to {high:g}",
        passed=least >= -ROUNDING,
    )


def _gain(row: Mapping[str, Any]) -> float:
    """Net benefit over the better of the two that ask no model; NaN where one is not defined."""
    if None in (row["model"], row["treat_all"], row["treat_none"]):
        return math.nan
    return float(row["model"] - max(row["treat_all"], row["treat_none"]))


def _where_declared(figures: Mapping[str, Any], spec: ModelSpec) -> Iterator[Finding]:
    limits = spec.limits
    if limits.sensitivity is not None:
        if spec.triage is None:
            value = _figure(figures, "at_threshold", "sensitivity")
            yield _at_least("sensitivity of the alert", value, limits.sensitivity)
        else:
            value = _figure(figures, "triage", "sensitivity_urgent", "value")
            name = f"sensitivity for level {spec.triage.urgent} or more urgent"
            yield _at_least(name, value, limits.sensitivity)
    if limits.utility is not None:
        yield _at_least("utility", _figure(figures, "utility", "value"), limits.utility)


def _recalibrated(figures: Mapping[str, Any], limits: Limits) -> Iterator[Finding]:
    for site, found in (figures.get("recalibration") or {}).items():
        name = f"observed over expected at {site}, recalibrated"
        yield _within(name, _figure(found, "after", "oe"), limits.subgroup_oe)


def _figure(figures: Mapping[str, Any], *path: str) -> Any:
    """What stands under ``path``, None where a step of it is missing or null."""
    found: Any = figures
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _at_least(criterion: str, value: float | None, limit: float, *, more: str = "") -> Finding:
    passed = value is not None and value >= limit
    return Finding(
        criterion=criterion, value=value, limit=f"at least {limit:g} {more}".strip(), passed=passed
    )


def _at_most(criterion: str, value: float | None, limit: float) -> Finding:
    passed = value is not None and value <= limit
    return Finding(criterion=criterion, value=value, limit=f"at most {limit:g}", passed=passed)


def _within(criterion: str, value: float | None, limit: Range, *, more: str = "") -> Finding:
    passed = value is not None and limit[0] <= value <= limit[1]
    return Finding(
        criterion=criterion,
        value=value,
        limit=f"{limit[0]:g} to {limit[1]:g} {more}".strip(),
        passed=passed,
    )
