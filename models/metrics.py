"""How good a risk is: discrimination, calibration, usefulness, overall and by group.

Pure: arrays in, numbers and tidy frames out. A measure that is not defined (one class only, nobody
over the threshold) is NaN, never an exception: a report has many small groups and one of them must
not stop it. The curves that belong to them are in ``models.curves``.

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
AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "nne", "alerts_per_100")
IN_GROUPS = ("slope", "oe", "brier", "sensitivity", "alerts_per_100")
COLUMNS = ["group", "level", "metric", "value", "low", "high", "n", "events", "suppressed"]


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
    ``by_comparator``: comparator, metric, value, low, high; an interval have the metrics ``auroc``,
    ``auprc`` and ``model_minus_this``, by how much the model's AUROC is greater in the same samples.
    """

    overall: pd.DataFrame
    by_group: pd.DataFrame
    by_comparator: pd.DataFrame
    threshold: float


def auroc(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """Chance that a patient with the outcome has the higher risk; a tie counts half.

    Source: Hanley & McNeil 1982, Radiology 143:29.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(resample.areas(resample.fold(resample.ranked(y, risk, weight)))[0][0])


def auroc_by(code: npt.ArrayLike, y: npt.ArrayLike, risk: npt.ArrayLike) -> Floats:
    """(k,) the AUROC within each of the groups 0 to k - 1 that ``code`` (n,) numbers; all at once.

    By the sum of the ranks of those with the outcome (Mann & Whitney 1947, Ann Math Stat 18:50).

    >>> auroc_by([0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0.2, 0.7, 0.4, 0.4, 0.5])
    array([1.  , 0.25])
    """
    c = resample.ranked(y, risk, None)
    group = np.asarray(code, dtype=np.intp)
    if group.shape != c.y.shape:
        raise ValueError("code must have one value for each row")
    group = group[c.order]
    order = np.lexsort((c.risk, group))
    of, value = group[order], c.risk[order]
    first = np.flatnonzero((np.diff(of, prepend=-1) != 0) | (np.diff(value, prepend=np.inf) != 0))
    size = np.diff(first, append=len(of))
    rank = np.repeat(first + (size + 1) / 2, size)  # the middle of a tie, counted from 1
    n, events = np.bincount(group), np.bincount(group, c.y)
    start = np.cumsum(n) - n
    above = np.bincount(of, c.y[order] * (rank - start[of])) - events * (events + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(above / (events * (n - events)))


def auprc(y: npt.ArrayLike, risk: npt.ArrayLike, weight: Weight = None) -> float:
    """Average precision: the sum of (recall_i - recall_i-1) precision_i, not interpolated.

    Source: Davis & Goadrich 2006, ICML, on why interpolation flatters.

    >>> round(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return float(resample.areas(resample.fold(resample.ranked(y, risk, weight)))[1][0])


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


def design_effect(y: npt.ArrayLike, risk: npt.ArrayLike, cluster: npt.ArrayLike) -> float:
    """How many times as much the events vary as they would if no two rows were of one ``cluster`` (n,).

    The squares of the clusters' sums of y - O/E risk over those of the rows; 1 where each row is one of
    its own, never less. Source: Williams 2000, Biometrics 56:645 (the variance between clusters).

    >>> design_effect([1, 1, 0, 0], [0.5] * 4, [1, 1, 2, 2]), design_effect([1, 0], [0.5] * 2, [1, 2])
    (2.0, 1.0)
    """
    y, risk = np.asarray(y, dtype=float), np.asarray(risk, dtype=float)
    code = pd.factorize(np.asarray(cluster))[0]
    if len(y) == 0 or np.bincount(code).max() == 1 or not risk.sum():
        return 1.0
    left = y - risk * (y.sum() / risk.sum())
    rows = float(left @ left)
    return max(1.0, float(np.square(np.bincount(code, left)).sum() / rows)) if rows else 1.0


def evaluate(
    y: npt.ArrayLike,
    risk: npt.ArrayLike,
    *,
    threshold: float,
    cluster: npt.ArrayLike | None = None,
    person: npt.ArrayLike | None = None,
    weight: Weight = None,
    groups: Mapping[str, npt.ArrayLike] | None = None,
    comparators: Mapping[str, npt.ArrayLike] | None = None,
    bootstrap: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Every measure, overall, by group and of each comparator, with 95 % percentile intervals.

    A bootstrap sample draws as many clusters (patients, hospital-years; rows without ``cluster``) as
    there are, with replacement: their counts become weights on rows sorted once, and every group and
    comparator is measured in the same samples. An interval runs from the k-th lowest to the k-th
    highest sample, k = floor(0.025 (bootstrap + 1)). The ICI has none: noise adds to an absolute
    value, so its samples lie too high. ``groups`` maps an attribute to its level in each row, where a
    missing one reads "missing". Under SMALLEST_GROUP distinct ``person`` (rows, without it) it is
    suppressed. ``comparators`` maps a name to its risk in each row.

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
    others = {name: resample.ranked(y, of, weight) for name, of in (comparators or {}).items()}
    clusters, _ = resample.coded(cluster, len(whole.y), "cluster")
    own, folded = [], []
    for _, _, c in strata:
        figures, table = resample.fit(c, threshold)
        own.append(figures)
        folded.append(resample.fold(c, clusters, table))
    rivals = [resample.fold(c, clusters) for c in others.values()]
    samples = np.full((len(strata), bootstrap, 11), np.nan)
    theirs = np.full((len(rivals), 2, bootstrap), np.nan)
    for some, drawn in resample.draws(clusters, bootstrap, seed):
        counts = np.ascontiguousarray(drawn.T)
        for f, figures, sample, hide in zip(folded, own, samples, hidden, strict=True):
            if not hide:
                sample[some] = resample.refit(f, figures, counts)
        for f, sample in zip(rivals, theirs, strict=True):
            sample[:, some] = resample.areas(f, counts)[:2]
    by_group = pd.concat(
        [_stratum(*of, threshold=threshold) for of in zip(strata, own, samples, hidden, strict=True)],
        ignore_index=True,
    )
    size = len(by_group) // len(strata)
    return Evaluation(
        overall=by_group.iloc[:size][COLUMNS[2:8]].astype({"events": int}),
        by_group=by_group.iloc[size:].reset_index(drop=True),
        by_comparator=_compared(others, theirs, own[0], samples[0], threshold=threshold),
        threshold=threshold,
    )


def _stratum(
    stratum: tuple[str, str, resample.Ranked],
    own: Floats,
    sample: Floats,
    hide: bool,  # noqa: FBT001 one of a row of four
    *,
    threshold: float,
) -> pd.DataFrame:
    """The rows of one group of ``Evaluation.by_group``."""
    group, level, c = stratum
    found, spread = resample.named(own, threshold), resample.named(sample, threshold)
    found["ici"] = np.array(np.nan if hide else resample.ici(c))
    records = []
    for metric, value in found.items():
        shown = (float(value), *resample.interval(spread[metric], float(value)), len(c.y), c.y.sum())
        figures = (np.nan, np.nan, np.nan, len(c.y), np.nan) if hide else shown
        records.append((group, level, metric, *figures, hide))
    return pd.DataFrame(records, columns=COLUMNS)


def _compared(
    others: Mapping[str, resample.Ranked],
    theirs: Floats,
    own: Floats,
    sample: Floats,
    *,
    threshold: float,
) -> pd.DataFrame:
    """``Evaluation.by_comparator``. ``own`` and ``sample`` are the model's."""
    model, drawn = resample.named(own, threshold)["auroc"], resample.named(sample, threshold)["auroc"]
    records = []
    for (name, c), (auroc, auprc) in zip(others.items(), theirs, strict=True):
        found = resample.point(c, threshold) | {"ici": resample.ici(c)}
        found["model_minus_this"] = float(model) - found["auroc"]
        spread = {"auroc": auroc, "auprc": auprc, "model_minus_this": drawn - auroc}
        nothing = np.empty(0)
        records += [
            (name, metric, value, *resample.interval(spread.get(metric, nothing), value))
            for metric, value in found.items()
        ]
    return pd.DataFrame(records, columns=["comparator", "metric", "value", "low", "high"])


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
    left, right = (resample.fold(c, clusters) for c in (a, b))
    value = float((resample.areas(left)[0] - resample.areas(right)[0])[0])
    samples = [
        resample.areas(left, counts)[0] - resample.areas(right, counts)[0]
        for counts in (drawn.T for _, drawn in resample.draws(clusters, bootstrap, seed))
    ]
    low, high = resample.interval(np.concatenate([*samples, []]), value)
    return Difference(value=value, low=low, high=high)


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as JSON: what is no finite number (undefined, suppressed) becomes null."""
    frame = evaluation.overall
    at = _records(frame)
    groups = []
    for (group, level), members in evaluation.by_group.groupby(["group", "level"], sort=False):
        row, known = _records(members), members.iloc[0]
        groups.append(
            {
                "group": group,
                "level": level,
                "n": int(known["n"]),
                "events": None if known["suppressed"] else int(known["events"]),
                "suppressed": bool(known["suppressed"]),
                "auroc": row["auroc"],
                **{metric: row[metric]["value"] for metric in IN_GROUPS},
                "intervals": {metric: _span(row[metric]) for metric in IN_GROUPS},
            }
        )
    rows, events = (int(frame[name].iloc[0]) for name in ("n", "events"))
    return {**_measures(at, rows, events, evaluation.threshold), "groups": groups}


def comparators_as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Each comparator by its name, as JSON."""
    rows, events = (int(evaluation.overall[name].iloc[0]) for name in ("n", "events"))
    found = {}
    for name, members in evaluation.by_comparator.groupby("comparator", sort=False):
        at = _records(members)
        gain = {"model_minus_this": {"auroc": at.pop("model_minus_this")}}
        found[str(name)] = _measures(at, rows, events, evaluation.threshold) | gain
    return found


def _measures(
    at: Mapping[str, dict[str, float | None]], rows: int, events: int, threshold: float
) -> dict[str, Any]:
    value = {metric: row["value"] for metric, row in at.items()}
    return {
        "n": rows,
        "events": events,
        **{metric: at[metric] for metric in ("auroc", "auprc")},
        **{metric: value[metric] for metric in ("brier", "brier_skill")},
        "calibration": {metric: value[metric] for metric in ("intercept", "slope", "oe", "ici")},
        "at_threshold": {"threshold": threshold}
        | {metric: value[metric] for metric in (*AT_THRESHOLD, "net_benefit")},
        "intervals": {metric: _span(row) for metric, row in at.items()},
    }


def _span(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: row[name] for name in ("low", "high")}


def _records(frame: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """value, low and high by metric, as JSON takes them."""
    return {
        metric: {
            name: float(figure) if np.isfinite(figure) else None
            for name, figure in zip(("value", "low", "high"), figures, strict=True)
        }
        for metric, *figures in frame[["metric", "value", "low", "high"]].itertuples(index=False)
    }
