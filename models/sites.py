"""Intercepts of single sites, shrunk to the overall one.

A hospital's patients may be sicker than the inputs tell, or its beds fewer. That moves every risk of
the site by about the same on the log-odds scale, so that one number mends it and the explanation
stays exact. A site with few outcomes says little about itself: its number is drawn towards 0 by
empirical Bayes, the more the fewer its outcomes.

Sources: Janssen et al. 2008, J Clin Epidemiol 61:76 (updating by an intercept); DerSimonian & Laird
1986, Control Clin Trials 7:177 (the variance between sites); Steyerberg 2019, Clinical Prediction
Models, ch. 20 (recalibration of a model for a new setting).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError
from models.calibration import sigmoid

FloatArray = npt.NDArray[np.float64]
FEWEST_EVENTS = 10
"""Of the rarer outcome at a site: under it the normal approximation of its intercept is too rough."""


@dataclass(frozen=True, kw_only=True)
class Intercept:
    """One site's maximum-likelihood intercept beside the overall line, and its standard error."""

    rows: int
    events: int
    value: float
    error: float


def intercept(log_odds: FloatArray, outcome: FloatArray) -> Intercept:
    """What must be added to calibrated ``log_odds`` so that as many events are expected as observed.

    Raises NotEnoughDataError under ``FEWEST_EVENTS`` of the rarer outcome.

    >>> events = np.arange(400) < 200
    >>> found = intercept(np.full(400, -1.0), events.astype(float))
    >>> round(found.value, 6), round(found.error, 3)
    (1.0, 0.1)
    """
    events = int(outcome.sum())
    rarer = min(events, len(outcome) - events)
    if rarer < FEWEST_EVENTS:
        raise NotEnoughDataError(
            f"an intercept needs {FEWEST_EVENTS} of the rarer outcome; there are {rarer}"
        )
    value = 0.0
    for _ in range(100):
        risk = sigmoid(log_odds + value)
        # Never more than one unit a step: far from the solution the curve is flat, Newton overshoots.
        step = float(np.clip((outcome - risk).sum() / (risk * (1 - risk)).sum(), -1, 1))
        value += step
        if abs(step) < 1e-10:
            break
    risk = sigmoid(log_odds + value)
    error = float(1 / np.sqrt((risk * (1 - risk)).sum()))
    return Intercept(rows=len(outcome), events=events, value=value, error=error)


def spread(found: Mapping[str, Intercept]) -> float:
    """Standard deviation of the true intercepts between sites, by the method of moments.

    >>> alike = {name: Intercept(rows=9, events=4, value=0.1, error=0.5) for name in "abc"}
    >>> spread(alike)
    0.0
    """
    if len(found) < 2:
        return 0.0
    values = np.array([site.value for site in found.values()])
    weights = np.array([site.error for site in found.values()]) ** -2.0
    mean = (weights @ values) / weights.sum()
    q = float(weights @ (values - mean) ** 2)
    scale = float(weights.sum() - (weights**2).sum() / weights.sum())
    return float(np.sqrt(max(0.0, (q - (len(values) - 1)) / scale)))


def shrunk(site: Intercept, between: float) -> float:
    """The site's intercept drawn towards 0: ``between`` squared over itself plus the error squared.

    >>> shrunk(Intercept(rows=400, events=200, value=1.0, error=0.1), 0.1)
    0.5
    """
    if between == 0:
        return 0.0
    return site.value * between**2 / (between**2 + site.error**2)


def fit(
    log_odds: FloatArray, outcome: FloatArray, site: npt.NDArray[np.object_]
) -> tuple[dict[str, float], float]:
    """Shrunken intercepts of the sites with enough outcomes, and the spread between them."""
    found = {}
    for name in sorted(set(site.tolist())):
        rows = site == name
        events = outcome[rows].sum()
        if min(events, rows.sum() - events) >= FEWEST_EVENTS:
            found[name] = intercept(log_odds[rows], outcome[rows])
    between = spread(found)
    if between == 0:
        return {}, 0.0
    return {name: shrunk(one, between) for name, one in found.items()}, between
