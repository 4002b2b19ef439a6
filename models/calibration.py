"""Calibration, linear in log-odds.

risk = sigmoid(intercept + slope * margin). Because it is a straight line, each SHAP contribution
scales by the slope and the explanation of the calibrated risk stays exact; a bent curve (isotonic)
would leave a remainder that belongs to no feature. Platt 1999; Cox 1958 for the test of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A straight line from the booster's margin to the calibrated log-odds."""

    intercept: float = 0.0
    slope: float = 1.0

    def log_odds(self, margin: FloatArray) -> FloatArray:
        return self.intercept + self.slope * margin


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """Log-odds to probability; no overflow at either end.

    >>> sigmoid(np.array([0.0, -800.0]))
    array([0.5, 0. ])
    """
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)


def fit(margin: FloatArray, outcome: FloatArray) -> Calibration:
    """The maximum-likelihood line, by Newton's method. ``outcome`` is 0 or 1.

    Raises NotEnoughDataError where the outcome has one class only: no line is determined.

    >>> margin = np.repeat([-2.0, 0.0, 2.0], 1000)
    >>> outcome = np.concatenate([np.arange(1000) < n for n in (269, 500, 731)]).astype(float)
    >>> line = fit(margin, outcome)
    >>> round(line.intercept, 3), round(line.slope, 3)
    (0.0, 0.5)
    """
    if len(np.unique(outcome)) < 2:
        raise NotEnoughDataError("calibration needs both outcomes among the tuning rows")
    design = np.column_stack([np.ones_like(margin), margin])
    line = np.array([0.0, 1.0])
    for _ in range(50):
        risk = sigmoid(design @ line)
        gradient = design.T @ (outcome - risk)
        hessian = (design * (risk * (1 - risk))[:, None]).T @ design
        step = np.linalg.solve(hessian, gradient)
        line += step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(intercept=float(line[0]), slope=float(line[1]))
