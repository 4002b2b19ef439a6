"""The past year, window by window: what was foreseen, and what then came true.

The estimate of a window is made as it was then, from what became of earlier windows alone. Intervals
of the truth are in closed form, widened where patients have several rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from models.metrics import SMALLEST_GROUP, design_effect
from models.spec import ModelSpec
from monitoring import analytic, looks
from monitoring.answers import Answers
from monitoring.estimate import from_tallies, tallies, tally
from monitoring.performance import FEWEST_EVENTS, FEWEST_OUTCOMES, span, summary
from monitoring.window import Window

FORESEEN = ("auroc", "oe", "slope", "net_benefit")


def trend(
    window: Window, spec: ModelSpec, *, at_promotion: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """A row a window, oldest first, the last is this one.

    ``{from, to, n, outcomes, mature, alerts_per_100, abstained, refused, estimate, truth, sites}``;
    ``estimate`` and ``truth`` map measures to ``{value, low, high}`` and are None where there is too
    little; ``sites`` has a row each, with O/E.
    """
    periods = looks.answers(window, looks=spec.watch.looks)
    earlier = window.past.between(datetime.min, periods[0][0].start)  # noqa: DTZ901 wall clock
    past, rows = tallies(earlier, window.answers), []
    for period, answers in periods:
        foreseen = from_tallies(answers, past, spec, at_promotion)
        dates = dict(zip(("from", "to"), period.days, strict=True))
        rows.append(dates | _row(answers, foreseen, spec.alert_at))
        if len(answers):
            past.append(tally(answers))
    return rows


def _row(answers: Answers, foreseen: Mapping[str, Any], alert_at: float) -> dict[str, Any]:
    counted = int(answers.counts.sum())
    return {
        "n": len(answers),
        "outcomes": int(answers.labelled.sum()),
        "mature": float((answers.counts & answers.mature).sum() / counted) if counted else None,
        **_rates(answers, alert_at),
        "estimate": None if foreseen["reason"] else {name: foreseen[name] for name in FORESEEN},
        "truth": _truth(answers, alert_at),
        "sites": _sites(answers, alert_at),
    }


def _rates(answers: Answers, alert_at: float) -> dict[str, float | None]:
    scored = answers.scored
    with np.errstate(invalid="ignore"):
        alerts = int((answers.risk >= alert_at).sum())
    n = len(answers)
    return {
        "alerts_per_100": 100 * alerts / int(scored.sum()) if scored.any() else None,
        "abstained": float((answers.status == 1).mean()) if n else None,
        "refused": float((answers.status == 2).mean()) if n else None,
    }


def _truth(answers: Answers, alert_at: float) -> dict[str, Any] | None:
    known = answers.take(answers.labelled)
    events = int(known.outcome.sum())
    if len(known) < FEWEST_OUTCOMES or min(events, len(known) - events) < FEWEST_EVENTS:
        return None
    return dict(summary(known, threshold=alert_at))


def _sites(answers: Answers, alert_at: float) -> list[dict[str, Any]]:
    """Each site in one window. O/E of under 20 patients, or without an event, is not shown."""
    n = len(answers.sites)
    site = np.where(answers.site < 0, n, answers.site)  # the last place is of no site
    with np.errstate(invalid="ignore"):
        alerts = np.bincount(site[answers.risk >= alert_at], minlength=n + 1)
    rows, scored = np.bincount(site, minlength=n + 1), np.bincount(site[answers.scored], minlength=n + 1)
    known = answers.labelled
    found = []
    for place, name in enumerate(answers.sites):
        there = np.flatnonzero(known & (site == place))
        y, risk = answers.outcome[there], answers.risk[there]
        patient = answers.patient[there]
        enough = len(pd.unique(patient)) >= SMALLEST_GROUP
        z = analytic.Z95 * design_effect(y, risk, patient) ** 0.5 if enough else 0.0
        found.append(
            {
                "site": name,
                "n": int(rows[place]),
                "outcomes": len(there),
                "oe": span(analytic.oe(y, risk, z=z)) if enough else None,
                "alerts_per_100": float(100 * alerts[place] / scored[place]) if scored[place] else None,
            }
        )
    return found
