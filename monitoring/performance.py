"""How good the answers were, where the outcome is known by now: overall, by site and by subgroup.

Under ``FEWEST_OUTCOMES`` outcomes or ``FEWEST_EVENTS`` of the rarer one the measures are null with a
reason: their intervals would cover everything. Answers that a clinician was shown stand apart from
those that nobody was, since a warning changes the outcome that it warned of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models import curves, metrics
from models.spec import ModelSpec
from monitoring import agreement, analytic, strata, utility
from monitoring.answers import Answers
from monitoring.window import Window

FEWEST_OUTCOMES = 50
FEWEST_EVENTS = 10
MEASURES = ("auroc", "auprc", "brier", "brier_skill", "calibration", "at_threshold", "intervals")
MOST = 100_000
"""Answers that are measured; of more some so many are, by patient: an AUROC moves by two thousandths."""
BINS, THRESHOLDS = 10, 21
"""Of the calibration curve, and of the decision curve."""
_RESAMPLED = 10_000_000
"""Rows drawn by the bootstrap in all: 500 samples up to 20,000 rows, fewer of more, where the
interval is narrow whatever their number."""


def measure(
    window: Window, spec: ModelSpec, *, at_promotion: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """``{n, events, reason, counted, MEASURES, curves, groups, apart, triage, utility, at_promotion}``.

    Either ``reason`` is null or the measures are. Intervals resample patients; a row that names none
    stands alone. ``curves``: observed against predicted, and net benefit over the spec's thresholds.
    ``groups``: as in the version's ``evaluation.json``, each site one of them; those of under 20
    patients are suppressed. ``apart``: answers that were not shown, and those that were. ``triage`` and
    ``utility``: of a model of levels, and of hourly alerts, with reasons of their own.
    ``at_promotion``: what ``evaluation.json`` holds of the same.
    """
    answers = window.answers
    places = np.flatnonzero(answers.labelled)
    y = answers.outcome[places]
    n, events = len(places), int(y.sum())
    known: dict[str, Any] = {"n": n, "events": events, "reason": None, "counted": spec.watch.counts}
    known |= {"triage": agreement.measure(window, spec), "utility": utility.measure(window, spec)}
    then = _then(at_promotion)
    people = len(np.unique(answers.patient[places]))
    few = n < FEWEST_OUTCOMES or min(events, n - events) < FEWEST_EVENTS
    if few or people < metrics.SMALLEST_GROUP:
        reason = (
            f"{n} outcomes are known, {min(events, n - events)} of the rarer kind; "
            f"at least {FEWEST_OUTCOMES} and {FEWEST_EVENTS} are needed"
            if few
            else f"the outcomes are of {people} patients; at least {metrics.SMALLEST_GROUP} are needed"
        )
        nothing = dict.fromkeys(MEASURES)
        empty: dict[str, Any] = {"curves": None, "groups": [], "apart": {}, "at_promotion": then}
        return {**known, "reason": reason, **nothing, **empty}
    every, places = places, strata.sampled(places, answers.patient, MOST)
    groups = strata.at(window, every)
    drawn = np.searchsorted(every, places)
    evaluation = metrics.evaluate(
        answers.outcome[places],
        answers.risk[places],
        threshold=spec.alert_at,
        cluster=answers.patient[places],
        person=answers.patient[places],
        groups={name: level[drawn] for name, level in groups.items()},
        bootstrap=max(100, min(500, _RESAMPLED // len(places))),
    )
    figures = metrics.as_dict(evaluation)
    kept = {name: figures[name] for name in MEASURES}
    kept["at_threshold"] = kept["at_threshold"] | {"treat_all": _treat_all(y, spec.alert_at)}
    rows = [row for row in figures["groups"] if row["level"] != strata.UNOPENED]
    if len(places) < n:
        rows = [row | _counted(groups[row["group"]] == row["level"], y, row) for row in rows]
    return {
        **known,
        **kept,
        "curves": drawn_curves(answers.outcome[places], answers.risk[places], spec),
        "groups": rows,
        "apart": apart(answers, spec),
        "at_promotion": then,
    }


def drawn_curves(
    y: npt.NDArray[np.float64], risk: npt.NDArray[np.float64], spec: ModelSpec
) -> dict[str, list[dict[str, float]]]:
    """``calibration``: risk, observed, low, high and n of bins of about as many rows, none of a few;
    ``net_benefit``: threshold, model, treat_all, treat_none.
    """
    bins = max(2, min(BINS, len(y) // (2 * metrics.SMALLEST_GROUP)))
    thresholds = np.linspace(*spec.benefit, THRESHOLDS)
    observed = curves.calibration_curve(y, risk, bins=bins)
    return {
        "calibration": observed[observed["n"] >= metrics.SMALLEST_GROUP].to_dict("records"),
        "net_benefit": curves.net_benefit(y, risk, thresholds).to_dict("records"),
    }


def _counted(
    there: npt.NDArray[np.bool_], y: npt.NDArray[np.float64], row: Mapping[str, Any]
) -> dict[str, Any]:
    """How many a group has, also of those that were not drawn."""
    return {"n": int(there.sum()), "events": None if row["suppressed"] else int(y[there].sum())}


def apart(answers: Answers, spec: ModelSpec) -> dict[str, dict[str, Any] | None]:
    """Of answers that were not shown and that were: n, events, AUROC, O/E and slope with intervals."""
    found: dict[str, dict[str, Any] | None] = {}
    for name, mask in (("unshown", ~answers.shown), ("shown", answers.shown)):
        part = answers.take(answers.labelled & mask)
        n, events = len(part), int(part.outcome.sum())
        enough = n >= FEWEST_OUTCOMES and min(events, n - events) >= FEWEST_EVENTS
        found[name] = (
            {"n": n, "events": events, **summary(part, threshold=spec.alert_at)} if enough else None
        )
    return found


def summary(answers: Answers, *, threshold: float) -> dict[str, dict[str, float] | None]:
    """AUROC, O/E, slope and net benefit of ``answers``, all of them labelled, in closed form.

    Intervals are as much wider as several rows of one patient make the events vary more.
    """
    y, risk = answers.outcome, answers.risk
    z = analytic.Z95 * metrics.design_effect(y, risk, answers.patient) ** 0.5
    found = {
        "auroc": analytic.auroc(y, risk, z=z),
        "oe": analytic.oe(y, risk, z=z),
        "slope": analytic.slope(y, risk, z=z),
        "net_benefit": analytic.net_benefit(y, risk, threshold=threshold, z=z),
    }
    return {name: span(interval) for name, interval in found.items()}


def span(interval: analytic.Interval) -> dict[str, float] | None:
    """An interval as JSON; None where it is not defined."""
    if not np.isfinite(interval).all():
        return None
    return dict(zip(("value", "low", "high"), map(float, interval), strict=True))


def _treat_all(y: npt.NDArray[np.float64], threshold: float) -> float:
    return float(y.mean() - (1 - y.mean()) * threshold / (1 - threshold))


def _then(at_promotion: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if at_promotion is None:
        return None
    names = ("n", "events", *MEASURES, "groups", "triage", "utility")
    return {name: at_promotion.get(name) for name in names}
