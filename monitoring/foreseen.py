"""What the measures of a window will be, when its outcomes are drawn from a line that is not sure.

Pure: risks and a line in, ranges out. Where patients are many they are put into cells of nearly equal
risk, site by site, so that a million cost no more than a few thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.calibration import sigmoid

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

SAMPLES = 400
CELLS = 2000
"""Of so many rows each is its own cell; more are put into some so many."""
FEWEST_CELLS = 100
"""Steps of risk, however many sites share the cells."""
MEASURES = ("auroc", "oe", "slope", "brier", "net_benefit", "sensitivity", "ppv", "alerts_per_100")
_STEPS = 4
_LEAST = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """Recalibrated log-odds = ``mean[0]`` + ``mean[1]`` log-odds + that of the site, and how sure it is.

    ``mean`` (2,), ``covariance`` (2, 2). ``between`` (2,): standard deviation of intercept and slope
    from one window to the next, the slope's about the log-odds ``centre``. ``sites``: of each site its
    own intercept and its standard error; ``unknown`` is that of a site of which nothing is known.
    ``spread``: how many times as much the events of several rows a patient vary as those of one would.
    ``basis`` says in words what taught it.
    """

    mean: FloatArray
    covariance: FloatArray
    between: FloatArray
    centre: float
    sites: dict[str, tuple[float, float]]
    unknown: float
    spread: float
    basis: str


def foreseen(
    risk: FloatArray,
    site: IntArray,
    sites: tuple[str, ...],
    line: Line,
    *,
    threshold: float,
    rng: np.random.Generator,
    samples: int = SAMPLES,
) -> dict[str, dict[str, float | None]]:
    """Each of ``MEASURES`` as ``{value, low, high}``: the middle and 95 % of outcomes that are drawn.

    ``risk`` (n,); ``site`` (n,) places in ``sites``, -1 where none is named.
    """
    value, of, rows = cells(risk, site, threshold=threshold)
    shift = np.array([line.sites.get(name, (0.0, line.unknown)) for name in (*sites, "")])
    moved = rng.normal(shift[:, 0], shift[:, 1], size=(samples, len(shift)))[:, of]
    drawn = rng.multivariate_normal(line.mean, line.covariance, size=samples, method="eigh")
    level, tilt = rng.normal(size=(2, samples)) * line.between[:, None]
    drawn[:, 0] += level - tilt * line.centre
    drawn[:, 1] += tilt
    chance = sigmoid(drawn[:, :1] + drawn[:, 1:] * logit(value) + moved)
    events = rng.binomial(rows, chance).astype(np.float64)
    if line.spread > 1:
        events = rows * chance + np.sqrt(line.spread) * (events - rows * chance)
    found = measured(value, rows.astype(np.float64), events, threshold=threshold)
    return {name: _range(found[name]) for name in MEASURES}


def measured(
    risk: FloatArray, rows: FloatArray, events: FloatArray, *, threshold: float
) -> dict[str, FloatArray]:
    """``MEASURES`` (samples,) of cells of ``risk`` (k,) in rising order, with ``rows`` (k,) and events.

    ``events`` (samples, k). What is not defined is NaN.

    >>> found = measured(
    ...     np.array([0.2, 0.6]), np.array([2.0, 2.0]), np.array([[0.0, 2.0]]), threshold=0.5
    ... )
    >>> found["auroc"].tolist(), found["oe"].tolist(), found["ppv"].tolist()
    ([1.0], [1.25], [1.0])
    """
    total, came = rows.sum(), events.sum(axis=1)
    none = rows - events
    # Rows of one risk are one tie, whichever cells they are in: a pair of them counts half.
    first = np.flatnonzero(np.diff(risk, prepend=-1.0))
    tied, without = np.add.reduceat(events, first, axis=1), np.add.reduceat(none, first, axis=1)
    below = np.cumsum(without, axis=1) - without / 2
    alert = risk >= threshold
    hits, alerts = events[:, alert].sum(axis=1), rows[alert].sum()
    weight = threshold / (1 - threshold)
    squares = events @ (1 - risk) ** 2 + none @ risk**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auroc": np.einsum("ij,ij->i", tied, below) / (came * (total - came)),
            "oe": came / (rows @ risk),
            "slope": _slopes(risk, rows, events),
            "brier": squares / total,
            "net_benefit": (hits - (alerts - hits) * weight) / total,
            "sensitivity": hits / came,
            "ppv": hits / np.float64(alerts),
            "alerts_per_100": np.full(len(came), 100 * alerts / total),
        }


def _slopes(risk: FloatArray, rows: FloatArray, events: FloatArray) -> FloatArray:
    """(samples,) the slope of a logistic regression on the log-odds, of all samples at once."""
    x = logit(risk)
    a, b = np.zeros((len(events), 1)), np.ones((len(events), 1))
    for step in range(2 * _STEPS):
        p = sigmoid(a + b * x)
        spread = rows * p * (1 - p)
        left = events - rows * p
        s0, s1, s2 = spread.sum(axis=1), spread @ x, spread @ x**2
        g0, g1 = left.sum(axis=1), left @ x
        det = np.maximum(s0 * s2 - s1**2, _LEAST)
        moved = np.clip((s0 * g1 - s1 * g0) / det, -1, 1)
        a += np.clip((s2 * g0 - s1 * g1) / det, -1, 1)[:, None]
        b += moved[:, None]
        if step >= _STEPS - 1 and np.abs(moved).max() < 1e-6:
            break
    slope, came = b[:, 0], events.sum(axis=1)
    slope[(came <= 0) | (came >= rows.sum())] = np.nan
    return slope


def cells(
    risk: FloatArray, site: IntArray, *, threshold: float
) -> tuple[FloatArray, IntArray, npt.NDArray[np.int64]]:
    """Mean risk, site and rows of each cell, in rising order of risk; none reaches over the threshold.

    >>> cells(np.array([0.4, 0.1]), np.array([0, 1]), threshold=0.2)
    (array([0.1, 0.4]), array([1, 0]), array([1, 1]))
    """
    order = np.argsort(risk, kind="stable")
    ordered, of = risk[order], site[order]
    if len(risk) <= CELLS:
        return ordered, of, np.ones(len(risk), dtype=np.int64)
    present, place = np.unique(of, return_inverse=True)
    steps = max(FEWEST_CELLS, CELLS // len(present))
    step = np.arange(len(risk)) * steps // len(risk) * 2 + (ordered >= threshold)
    code = step * len(present) + place
    rows = np.bincount(code)
    there = np.flatnonzero(rows)
    mean = np.bincount(code, ordered)[there] / rows[there]
    rising = np.argsort(mean, kind="stable")
    return mean[rising], present[there[rising] % len(present)], rows[there[rising]]


def _range(samples: FloatArray) -> dict[str, float | None]:
    known = samples[np.isfinite(samples)]
    if len(known) < len(samples) / 2:
        return {"value": None, "low": None, "high": None}
    low, middle, high = np.quantile(known, [0.025, 0.5, 0.975])
    return {"value": float(middle), "low": float(low), "high": float(high)}


def logit(risk: FloatArray) -> FloatArray:
    """Log-odds, finite also of 0 and 1."""
    safe = np.clip(risk, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(safe) - np.log1p(-safe))
