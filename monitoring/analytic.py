"""Measures with intervals in closed form, for trends and for levels that no bootstrap reaches.

An alarm that may be false once in ten thousand looks asks for the far tail of a distribution, of which
some hundred samples know nothing. Each function gives ``(value, low, high)`` at ``z`` standard errors,
NaN where the measure is not defined; the report's own intervals are bootstrapped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models import metrics
from monitoring.estimate import logistic

FloatArray = npt.NDArray[np.float64]
Interval = tuple[float, float, float]
Z95 = 1.959964
NOTHING: Interval = (float("nan"), float("nan"), float("nan"))
_LEAST = 1e-9


def oe(y: FloatArray, risk: FloatArray, *, z: float = Z95) -> Interval:
    """Observed/expected; its logarithm has the standard error sqrt((1 - O/n) / O).

    Source: Debray et al. 2017, BMJ 356:i6460.

    >>> y, risk = np.repeat([1.0, 0.0], [20, 80]), np.full(100, 0.25)
    >>> [round(x, 3) for x in oe(y, risk)]  # 0.8 times e to the plus or minus 1.96 sqrt(0.8 / 20)
    [0.8, 0.541, 1.184]
    """
    observed, expected = float(y.sum()), float(risk.sum())
    if not observed or not expected:
        return NOTHING
    value, error = observed / expected, np.sqrt((1 - y.mean()) / observed)
    return value, float(value * np.exp(-z * error)), float(value * np.exp(z * error))


def auroc(y: FloatArray, risk: FloatArray, *, z: float = Z95) -> Interval:
    """Area under the curve with the standard error of Hanley & McNeil 1982, Radiology 143:29.

    >>> y, risk = np.repeat([1.0, 0.0], [50, 50]), np.r_[np.arange(50) + 25.0, np.arange(50)] / 100
    >>> [round(x, 3) for x in auroc(y, risk)]
    [0.875, 0.805, 0.945]
    """
    events = float(y.sum())
    others = len(y) - events
    if not events or not others:
        return NOTHING
    a = metrics.auroc(y, risk)
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    spread = a * (1 - a) + (events - 1) * (q1 - a**2) + (others - 1) * (q2 - a**2)
    error = np.sqrt(max(spread, 0.0) / (events * others))
    return a, float(max(0.0, a - z * error)), float(min(1.0, a + z * error))


def slope(y: FloatArray, risk: FloatArray, *, z: float = Z95) -> Interval:
    """Calibration slope, its standard error from the information (Cox 1958, Biometrika 45:562).

    >>> y, risk = np.repeat([0.0, 1.0, 0.0, 1.0], [75, 25, 25, 75]), np.repeat([0.25, 0.75], 100)
    >>> [round(x, 3) for x in slope(y, risk)]
    [1.0, 0.709, 1.291]
    """
    if not 0 < y.sum() < len(y) or np.ptp(risk) == 0:
        return NOTHING
    safe = np.clip(risk, _LEAST, 1 - _LEAST)
    mean, covariance = logistic(np.log(safe) - np.log1p(-safe), y)
    value, error = float(mean[1]), float(np.sqrt(covariance[1, 1]))
    return value, value - z * error, value + z * error


def net_benefit(y: FloatArray, risk: FloatArray, *, threshold: float, z: float = Z95) -> Interval:
    """Net benefit of acting on every risk from ``threshold`` up, as the mean of each patient's.

    Source: Vickers & Elkin 2006, Med Decis Making 26:565.

    >>> y, risk = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.9, 0.9, 0.1, 0.1])
    >>> round(net_benefit(y, risk, threshold=0.2)[0], 4)  # (1 - 0.25) / 4
    0.1875
    """
    if len(y) < 2:
        return NOTHING
    gain = gains(y, risk, threshold=threshold)
    value, error = float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
    return value, value - z * error, value + z * error


def gains(y: FloatArray, risk: FloatArray, *, threshold: float) -> FloatArray:
    """(n,) what each patient adds to the net benefit: 1 an event found, minus the odds a false alert.

    >>> gains(np.array([1.0, 0.0, 1.0]), np.array([0.9, 0.9, 0.1]), threshold=0.5).tolist()
    [1.0, -1.0, 0.0]
    """
    weight = threshold / (1 - threshold)
    return np.where(risk >= threshold, y - (1 - y) * weight, 0.0)
