"""Are the patients riskier than those that the version was promoted on, or less so?

The mean risk is what the version expects to happen, before anything did: beds and staff go by it long
before an outcome is known. It is tested by betting over the year's windows, as calibration is
(:mod:`monitoring.sequential`): against the claim that it lies within its bounds, which are multiples of
the mean risk at promotion. PSI of the risk, beside it, sees a change of shape and not a mean that
moves by a fifth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.metrics import design_effect
from models.spec import ModelSpec
from monitoring import looks, sequential
from monitoring.counting import MIN_ROWS
from monitoring.signal import Signal
from monitoring.window import Window

WITHIN = (0.87, 1.15)
"""Unless the spec says otherwise: a seventh more or less is what a ward notices."""
STAKES = (0.02, 0.05, 0.1, 0.25)
"""Small ones: the mean lies a few hundredths beyond its bound, where single risks lie far from it."""


def expected(at_promotion: Mapping[str, Any] | None) -> float | None:
    """The mean risk of the rows that the version was tested on: events over n and observed/expected.

    >>> expected({"n": 1000, "events": 180, "calibration": {"oe": 0.9}})
    0.2
    """
    told = at_promotion or {}
    n, events, oe = told.get("n"), told.get("events"), (told.get("calibration") or {}).get("oe")
    return events / (n * oe) if n and events and oe else None


def signals(window: Window, spec: ModelSpec, at_promotion: Mapping[str, Any] | None) -> list[Signal]:
    """One where the mean risk has left its bounds; none without figures of the promotion."""
    then, alarm = expected(at_promotion), spec.watch.of("prediction_drift")
    if then is None or alarm is None:
        return []
    year = [
        (period.days[0], answers.take(answers.scored))
        for period, answers in looks.answers(window, looks=spec.watch.looks)
    ]
    if not year or len(year[-1][1]) < MIN_ROWS:
        return []
    low = WITHIN[0] if alarm.low is None else alarm.low
    high = WITHIN[1] if alarm.high is None else alarm.high
    risk, patient = (np.concatenate([getattr(p, name) for _, p in year]) for name in ("risk", "patient"))
    spread = design_effect(risk, np.ones(len(risk)), patient)
    limit = np.log10(2 / spec.watch.alpha)
    for side, bound in (("more", high * then), ("less", low * then)):
        sign, most = (1.0, bound) if side == "more" else (-1.0, 1 - bound)
        bets = [
            sequential.below_zero(sign * (bound - part.risk), most=most, stakes=STAKES)
            for _, part in year
        ]
        found = sequential.evidence(bets, looks=spec.watch.looks, spread=spread)
        if found.value < limit:
            continue
        since = year[found.start][0]
        mean = float(np.concatenate([part.risk for _, part in year[found.start :]]).mean())
        return [
            Signal(
                what="prediction_drift",
                message=(
                    f"The mean risk is {mean:.3f}, {mean / then:.2f} times that at promotion, since "
                    f"{since}: {'sicker' if side == 'more' else 'less ill'} patients, or other "
                    f"inputs; {low:g} to {high:g} times is expected"
                ),
                column="risk",
                value=mean / then,
                limits=(low, high),
                since=since,
            )
        ]
    return []
