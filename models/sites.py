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

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError
from models.calibration import sigmoid

FloatArray = npt.NDArray[np.float64]
FEWEST_EVENTS = 10
"""Of the rarer outcome at a site: under it the normal approximation of its intercept is too rough."""
FOLDS = 5
SPREAD = 0.5
"""Standard deviation between sites, in log-odds, where a version saw no sites that differ: two in three
sites within a factor of 1.65 of the overall odds. Wide enough for a few hundred outcomes to speak."""


@dataclass(frozen=True, kw_only=True)
class Intercept:
    """One site's maximum-likelihood intercept beside the overall line, and its standard error."""

    rows: int
    events: int
    value: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How the risks at a site agree with what happened there: ideal is 1, 0 and 1."""

    oe: float | None
    intercept: float | None
    slope: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What ``n`` rows of a site say. ``shift`` is to be added to the log-odds there instead of
    ``previous``; ``before`` is measured with the latter, ``after`` with the former, cross-validated.
    """

    n: int
    events: int
    before: Fit
    after: Fit
    shift: float
    previous: float


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


def estimate(
    log_odds: FloatArray,
    outcome: FloatArray,
    person: npt.NDArray[np.integer],
    *,
    between: float,
    previous: float = 0.0,
) -> Estimate:
    """What one site's rows say of its intercept beside the overall line.

    ``log_odds`` (rows,) are calibrated, without any shift of the site; ``person`` (rows,) numbers the
    patients from 0; ``between`` is the spread of a version's sites, 0 where it saw none that differ.
    Raises NotEnoughDataError where there are too few outcomes.

    >>> outcome = (np.arange(400) < 200).astype(float)
    >>> found = estimate(np.full(400, -1.0), outcome, np.arange(400), between=10.0, previous=0.5)
    >>> round(found.shift, 2), round(found.before.intercept, 2), abs(round(found.after.intercept, 2))
    (1.0, 0.5, 0.0)
    """
    between = between or SPREAD
    return Estimate(
        n=len(outcome),
        events=int(outcome.sum()),
        before=measured(outcome, log_odds + previous),
        after=measured(outcome, crossed(log_odds, outcome, person, between=between)),
        shift=shrunk(intercept(log_odds, outcome), between),
        previous=previous,
    )


def measured(outcome: FloatArray, log_odds: FloatArray) -> Fit:
    """O/E, intercept and slope of the risks at one site.

    >>> found = measured(np.array([0.0, 0.0, 0.0, 1.0] * 25), np.full(100, -np.log(3)))
    >>> round(found.oe, 6), found.slope is None
    (1.0, True)
    """
    # The service reads this module for its levels, and does without pandas, which metrics need.
    from models import metrics

    found = metrics.calibration(outcome, sigmoid(log_odds))
    known = {name: getattr(found, name) for name in ("oe", "intercept", "slope")}
    return Fit(**{name: value if math.isfinite(value) else None for name, value in known.items()})


def crossed(
    log_odds: FloatArray,
    outcome: FloatArray,
    person: npt.NDArray[np.integer],
    *,
    between: float,
    seed: int = 0,
) -> FloatArray:
    """(rows,) log-odds with the shrunken intercept of the other patients' rows, in ``FOLDS`` parts.

    ``person`` (rows,) numbers the patients from 0. Those with an event are dealt out evenly, and so are
    the others: whether there are enough must not hang on how patients are numbered. Raises
    NotEnoughDataError where the others have too few outcomes.
    """
    rng = np.random.default_rng(seed)
    came = np.bincount(person, outcome) > 0
    part_of = np.empty(len(came), dtype=np.intp)
    for stratum in (np.flatnonzero(came), np.flatnonzero(~came)):
        part_of[rng.permutation(stratum)] = np.arange(len(stratum)) % FOLDS
    part = part_of[person]
    shifted = log_odds.copy()
    for fold in range(FOLDS):
        taught = part != fold
        shifted[~taught] += shrunk(intercept(log_odds[taught], outcome[taught]), between)
    return shifted
