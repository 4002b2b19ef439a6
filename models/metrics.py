"""How good a risk is: discrimination, calibration, usefulness, overall and by group.

Pure: arrays in, numbers and tidy frames out; ``models.plots`` draws them. A measure that is not
defined (one class only, nobody over the threshold) is NaN, never an exception: a report has many
small groups and one of them must not stop it.

Throughout, ``y`` is the outcome (0 or 1), ``risk`` the predicted probability and ``weight`` an
optional non-negative weight, each of shape (n,). A risk equal to the threshold raises the alert.
Every function raises NotEnoughDataError without rows, and ValueError for a missing outcome, a risk
outside [0, 1] or unequal lengths.

Sources: Van Calster et al. 2019, BMC Med 17:230 (calibration); Austin & Steyerberg 2019, Stat Med
38:4051 (ICI); Vickers & Elkin 2006, Med Decis Making 26:565 (net benefit); Efron & Tibshirani 1993,
An Introduction to the Bootstrap, ch. 13 (percentile intervals).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models import resample
from models.resample import Floats, Weight

SMALLEST_GROUP = 20  # people; the figures of fewer say more about them than about the model
Z = 1.959963984540054  # two-sided 95 % point of the normal distribution
AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "nne", "alerts_per_100")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Ideal: intercept 0, slope 1, oe 1, ici 0."""

    intercept: float
    slope: float
    oe: float
    ici: float


@dataclass(frozen=True, kw_only=True)
class AtThreshold:
    """What a ward sees when it acts on every risk at or above ``threshold``."""

    threshold: float
    sensitivity: float
    specificity: float
    ppv: float
    npv: float
    nne: float
    alerts_per_100: float


@dataclass(frozen=True, kw_only=True)
class Difference:
    """AUROC of a minus AUROC of b, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Every measure with its interval.

    ``overall``: metric, value, low, high, n, events. ``by_group``: group, level, metric, value, low,
    high, n, events, suppressed. n and events count rows, unweighted. A suppressed group keeps its n,
    so that nobody goes missing from the count, and loses its figures and its events.
    """

    overall: pd.DataFrame
    by_group: pd.DataFrame
    threshold: float


def auroc(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """Chance that a patient with the outcome has the higher risk; a tie counts half.

    Source: Hanley & McNeil 1982, Radiology 143:29.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return resample.point(resample.ranked(y, risk, weight), 0)["auroc"]


def auprc(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """Average precision: the sum of (recall_i - recall_i-1) precision_i, not interpolated.

    Source: Davis & Goadrich 2006, ICML, on why interpolation flatters.

    >>> round(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return resample.point(resample.ranked(y, risk, weight), 0)["auprc"]


def brier(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """Mean of (risk - y)^2. Source: Brier 1950, Mon Weather Rev 78:1.

    >>> round(brier([0, 1], [0.1, 0.8]), 4)
    0.025
    """
    return resample.point(resample.ranked(y, risk, weight), 0)["brier"]


def brier_skill(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """1 - brier / (p (1 - p)), p the share with the outcome: 0 is no better than telling everyone p.

    >>> round(brier_skill([0, 1], [0.1, 0.8]), 4)
    0.9
    """
    return resample.point(resample.ranked(y, risk, weight), 0)["brier_skill"]


def calibration(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> Calibration:
    """Calibration in the large, slope, observed/expected and integrated calibration index.

    intercept: a of logit P(y) = a + logit(risk), the slope held at 1. slope: b of
    logit P(y) = a' + b logit(risk); NaN where it would be infinite (the risk separates the classes).
    oe: sum y / sum risk. ici: mean of abs(smoothed observed - risk), where the smoother is a logistic
    regression on a restricted cubic spline of logit(risk), one of the two in Austin & Steyerberg.

    >>> found = calibration([0, 0, 0, 1, 0, 1, 1, 1], [0.25] * 4 + [0.75] * 4)
    >>> round(found.slope, 3), round(found.oe, 3)
    (1.0, 1.0)
    """
    c = resample.ranked(y, risk, weight)
    found = resample.point(c, 0)
    return Calibration(
        ici=resample.ici(c), **{name: found[name] for name in ("intercept", "slope", "oe")}
    )


def at_threshold(
    y: npt.ArrayLike, risk: npt.ArrayLike, threshold: float, weight: Weight = None
) -> AtThreshold:
    """Counts at one threshold. nne = 1 / ppv: alerts answered for each patient found.

    >>> at_threshold([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.8], 0.5).nne
    1.5
    """
    found = resample.point(resample.ranked(y, risk, weight), threshold)
    return AtThreshold(threshold=threshold, **{name: found[name] for name in AT_THRESHOLD})


def net_benefit(
    y: npt.ArrayLike, risk: npt.ArrayLike, thresholds: npt.ArrayLike, weight: Weight = None
) -> pd.DataFrame:
    """Decision curve, TP/n - FP/n t/(1 - t); columns threshold, model, treat_all, treat_none.

    >>> net_benefit([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.8], [0.5]).to_dict("records")
    [{'threshold': 0.5, 'model': 0.25, 'treat_all': 0.0, 'treat_none': 0.0}]
    """
    t = np.asarray(thresholds, dtype=float)
    if t.ndim != 1 or not ((t >= 0) & (t < 1)).all():
        raise ValueError("thresholds must be one-dimensional and lie in [0, 1)")
    c = resample.ranked(y, risk, weight)
    alerts = np.searchsorted(-c.risk, -t, side="right")
    seen, hits = resample.running(c.weight), resample.running(c.weight * c.y)
    false, odds = seen - hits, t / (1 - t)
    with np.errstate(all="ignore"):
        model = (hits[alerts] - false[alerts] * odds) / seen[-1]
        everyone = (hits[-1] - false[-1] * odds) / seen[-1]
    return pd.DataFrame({"threshold": t, "model": model, "treat_all": everyone, "treat_none": 0.0})


def calibration_curve(
    y: npt.ArrayLike, risk: npt.ArrayLike, bins: int = 10, weight: Weight = None
) -> pd.DataFrame:
    """Bins of about equal size: columns risk (mean), observed, low, high (Wilson 95 %), n (rows).

    Equal risks share a bin, so a coarse score gives fewer bins. With weights the interval takes
    Kish's effective size, (sum w)^2 / sum w^2. Source: Wilson 1927, J Am Stat Assoc 22:209.

    >>> calibration_curve([0, 1, 1, 1], [0.2, 0.2, 0.9, 0.9], bins=2)["observed"].tolist()
    [0.5, 1.0]
    """
    c = resample.ranked(y, risk, weight)
    edges = np.quantile(c.risk, np.linspace(0, 1, bins + 1)[1:-1])
    code = np.unique(np.searchsorted(edges, c.risk, side="right"), return_inverse=True)[1]
    w, squares = np.bincount(code, c.weight), np.bincount(code, c.weight**2)
    with np.errstate(all="ignore"):
        risks, p = np.bincount(code, c.weight * c.risk) / w, np.bincount(code, c.weight * c.y) / w
        z2 = Z**2 * squares / w**2  # Z^2 / size
        middle = (p + z2 / 2) / (1 + z2)
        half = np.sqrt(z2 * p * (1 - p) + z2**2 / 4) / (1 + z2)
    low, high = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return pd.DataFrame({"risk": risks, "observed": p, "low": low, "high": high, "n": np.bincount(code)})


def smoothed_calibration(
    y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None, *, points: int = 100
) -> pd.DataFrame:
    """The curve behind the ICI, from the 1st to the 99th percentile; columns risk, observed."""
    c = resample.ranked(y, risk, weight)
    low, high = np.quantile(c.risk, (0.01, 0.99))
    grid = np.linspace(low, high, points)
    return pd.DataFrame({"risk": grid, "observed": resample.smoothed(c, resample.logit(grid))})


def risk_histogram(y: npt.ArrayLike, risk: npt.ArrayLike, bins: int = 20) -> pd.DataFrame:
    """Rows in bins of equal width over [0, 1]; columns low, high, events, non_events."""
    c, edges = resample.ranked(y, risk, None), np.linspace(0, 1, bins + 1)
    events, others = (np.histogram(c.risk[c.y == of], edges)[0] for of in (1, 0))
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "events": events, "non_events": others})


def roc_curve(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> pd.DataFrame:
    """From (0, 0), then one row per distinct risk; columns threshold, fpr, tpr."""
    threshold, seen, hits = resample.steps(resample.ranked(y, risk, weight))
    with np.errstate(all="ignore"):
        fpr, tpr = (seen - hits) / (seen - hits)[-1], hits / hits[-1]
    return pd.DataFrame({"threshold": threshold, "fpr": fpr, "tpr": tpr})


def pr_curve(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> pd.DataFrame:
    """One row per distinct risk, recall rising; columns threshold, recall, precision."""
    threshold, seen, hits = (of[1:] for of in resample.steps(resample.ranked(y, risk, weight)))
    with np.errstate(all="ignore"):
        recall, precision = hits / hits[-1], hits / seen
    return pd.DataFrame({"threshold": threshold, "recall": recall, "precision": precision})


def evaluate(
    y: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    threshold: float,
    cluster: npt.ArrayLike | None = None,
    person: npt.ArrayLike | None = None,
    weight: Weight = None,
    groups: Mapping[str, npt.ArrayLike] | None = None,
    bootstrap: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Every measure, overall and by group, with 95 % percentile intervals.

    A bootstrap sample draws as many clusters (patients, hospital-years; rows without ``cluster``) as
    there are, with replacement: their counts become weights on rows sorted once, and every group is
    measured in the same samples. An interval runs from the k-th lowest to the k-th highest sample,
    k = floor(0.025 (bootstrap + 1)). The ICI has none: noise adds to an absolute value, so its
    samples lie too high. ``groups`` maps an attribute to its level in each row, where a missing one
    reads "missing". Under SMALLEST_GROUP distinct ``person`` (rows, without it) it is suppressed.

    >>> made = evaluate([0, 1, 0, 1] * 25, [0.2, 0.6, 0.4, 0.3] * 25, threshold=0.3, bootstrap=99)
    >>> made.overall.set_index("metric").loc["auroc", "value"].item()
    0.75
    """
    whole = resample.ranked(y, risk, weight)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold must lie in [0, 1): {threshold}")
    people, _ = resample.coded(person, len(whole.y), "person")
    strata = [("", "", whole)]
    for group, values in (groups or {}).items():
        code, levels = resample.coded(values, len(whole.y), f"group {group}", missing="missing")
        code = code[whole.order]
        strata += [(group, level, resample.subset(whole, code == k)) for k, level in enumerate(levels)]
    # The cohort itself is no subgroup: that it is small shows in its intervals.
    hidden = [bool(group) and len(np.unique(people[c.order])) < SMALLEST_GROUP for group, _, c in strata]
    fits = [resample.fit(c, threshold) for _, _, c in strata]
    samples = np.full((len(strata), bootstrap, 11), np.nan)
    clusters, _ = resample.coded(cluster, len(whole.y), "cluster")
    for some, drawn in resample.draws(clusters, bootstrap, seed):
        for (_, _, c), fit, sample, hide in zip(strata, fits, samples, hidden, strict=True):
            if not hide:
                sample[some] = resample.refit(c, fit, drawn.take(clusters[c.order], axis=1) * c.weight)
    records = []
    for (group, level, c), (own, _), sample, hide in zip(strata, fits, samples, hidden, strict=True):
        found, spread = resample.named(own, threshold), resample.named(sample, threshold)
        found["ici"] = np.array(resample.ici(c))
        for metric, value in found.items():
            shown = (float(value), *resample.interval(spread[metric], float(value)), len(c.y), c.y.sum())
            figures = (np.nan, np.nan, np.nan, len(c.y), np.nan) if hide else shown
            records.append((group, level, metric, *figures, hide))
    columns = ["group", "level", "metric", "value", "low", "high", "n", "events", "suppressed"]
    frame, size = pd.DataFrame(records, columns=columns), len(records) // len(strata)
    overall = frame.iloc[:size][columns[2:8]].astype({"events": int})
    return Evaluation(
        overall=overall, by_group=frame.iloc[size:].reset_index(drop=True), threshold=threshold
    )


def paired_difference(
    y: npt.ArrayLike,
    risk_a: npt.ArrayLike,
    risk_b: npt.ArrayLike,
    *,
    cluster: npt.ArrayLike | None = None,
    weight: Weight = None,
    bootstrap: int = 500,
    seed: int = 0,
) -> Difference:
    """AUROC of a minus that of b, both measured in the same bootstrap samples of the same rows.

    >>> paired_difference([0, 1] * 20, [0.1, 0.9] * 20, [0.5, 0.5] * 20).value
    0.5
    """
    a, b = resample.ranked(y, risk_a, weight), resample.ranked(y, risk_b, weight)

    clusters, _ = resample.coded(cluster, len(a.y), "cluster")

    def difference(drawn: Floats) -> Floats:
        left, right = (
            resample.ranks(c, drawn.take(clusters[c.order], axis=1) * c.weight)[0] for c in (a, b)
        )
        return left - right

    value = float(difference(np.ones((1, len(a.y))))[0])
    samples = [difference(drawn) for _, drawn in resample.draws(clusters, bootstrap, seed)]
    low, high = resample.interval(np.concatenate([*samples, []]), value)
    return Difference(value=value, low=low, high=high)


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON: what is no finite number (undefined, suppressed) becomes null."""
    of = _records(evaluation.overall)
    groups = []
    for (group, level), frame in evaluation.by_group.groupby(["group", "level"], sort=False):
        at = _records(frame)
        groups.append({"group": group, "level": level})
        groups[-1] |= {name: at["auroc"][name] for name in ("n", "events", "suppressed")}
        groups[-1] |= {"auroc": {name: at["auroc"][name] for name in ("value", "low", "high")}}
        groups[-1] |= {name: at[name]["value"] for name in ("slope", "oe", "brier")}
    return {
        **{name: of["auroc"][name] for name in ("n", "events")},
        **{
            metric: {name: of[metric][name] for name in ("value", "low", "high")}
            for metric in ("auroc", "auprc")
        },
        **{metric: of[metric]["value"] for metric in ("brier", "brier_skill")},
        "calibration": {metric: of[metric]["value"] for metric in ("intercept", "slope", "oe", "ici")},
        "at_threshold": {"threshold": evaluation.threshold}
        | {metric: of[metric]["value"] for metric in (*AT_THRESHOLD, "net_benefit")},
        "intervals": {
            metric: {name: row[name] for name in ("low", "high")} for metric, row in of.items()
        },
        "groups": groups,
    }


def _records(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows by metric, as JSON takes them."""
    rows = frame.replace([np.inf, -np.inf], np.nan).astype({"events": "Int64"}).astype(object)
    return {row["metric"]: row for row in rows.where(rows.notna(), None).to_dict("records")}
