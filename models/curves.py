"""What the plots show: each curve of a risk as a tidy frame, which ``models.plots`` draws.

Arguments, refusals and sources are those of ``models.metrics``; what is not defined is NaN.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from models import resample
from models.resample import Weight

Z = 1.959963984540054  # two-sided 95 % point of the normal distribution


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
